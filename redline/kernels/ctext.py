"""Pieces of C text that several kernel families write."""

import re
from collections.abc import Sequence
from itertools import pairwise

from redline.base.extents import is_open

VECTORIZE = "#pragma clang loop vectorize(assume_safety) unroll(disable)"
VECTORIZE_LONG = "#pragma clang loop vectorize(assume_safety)"
UNROLL = "#pragma clang loop unroll(full)"
SHORT_LOOP = 64
SHORT_BODY = 20  # lines: a bias, a sum with another tensor and bounds, but no polynomial
FLOATS = 16  # of the widest vectors


def block(head: str, body: Sequence[str]) -> list[str]:
    """``head { body }``, the body one step to the right."""
    return [f"{head} {{".lstrip(), *(f"  {line}" for line in body), "}"]


def loop(variable: str, begin: str | int, end: str | int, body: Sequence[str]) -> list[str]:
    """A counting loop."""
    return block(f"for (int64_t {variable} = {begin}; {variable} < {end}; ++{variable})", body)


def unrolled(variable: str, begin: int, end: int, body: Sequence[str]) -> list[str]:
    """A counting loop; unrolled while the body is short, so that the small array of sums that it reads stays in registers."""
    calls = set(re.findall(r"\brl_\w+", " ".join(body))) - {"rl_bf16", "rl_bits", "rl_from_bf16", "rl_to_bf16"}
    pragma = [UNROLL] if len(body) <= SHORT_BODY and not calls else []
    return [*pragma, *loop(variable, begin, end, body)]


def vectorized(variable: str, begin: str | int, end: str | int, body: Sequence[str]) -> list[str]:
    """A counting loop whose iterations are independent, in vectors.

    The compiler would unroll a short loop into scalars before it thinks of vectors, so that is forbidden; a longer one may
    be unrolled afterwards.
    """
    short = isinstance(begin, int) and isinstance(end, int) and end - begin < SHORT_LOOP  # an open end is a long one
    pragma = VECTORIZE if short else VECTORIZE_LONG
    whole = not short or int(end) - int(begin) >= FLOATS
    return [in_vectors(pragma, body) if whole else pragma, *loop(variable, begin, end, body)]


def in_vectors(pragma: str, body: Sequence[str], width: int = FLOATS) -> str:
    """``pragma`` with a width, where the compiler would choose one of four elements: it overrates rounding to bfloat16."""
    return f"{pragma} vectorize_width({width})" if any("rl_to_bf16" in line for line in body) else pragma


def vector_loop(end: int, lanes: int, body: Sequence[str], in_memory: bool = False) -> list[str]:
    """A loop of ``j`` over [0, end) in vectors of ``lanes``: the iterations must be independent.

    ``in_memory``: what the body reads lies there already. The last vector then begins before the end of the one before, and
    what both have is computed twice; and functions that only gain where no registers are short have all their lanes at once.

    The compiler would unroll a short loop into scalars before it thinks of vectors, so the loop of one vector is kept from
    unrolling; the one over the vectors unrolls, and what lies in small arrays moves to registers.
    """
    full = end // lanes
    lines = []
    if full:
        lines += loop("v", 0, full, _one_vector(lanes, body, f"v * {lanes}", in_memory))
    if in_memory and full and end % lanes:
        return lines + last_vector(end, lanes, body)
    if end % lanes:
        lines += [VECTORIZE, *loop("j", full * lanes, end, body)]
    return lines


def last_vector(end: int, lanes: int, body: Sequence[str]) -> list[str]:
    """The last ``lanes`` elements before ``end``, of what lies in memory: ``e`` counts them."""
    return block("", _one_vector(lanes, body, str(end - lanes), True))


def _one_vector(lanes: int, body: Sequence[str], begin: str, in_memory: bool) -> list[str]:
    """The elements from ``begin`` on.

    A function that looks things up has all its lanes at once, before and after it loops.
    """
    known = _TOGETHER if in_memory else _LOOKED_UP
    place = next((i for i, line in enumerate(body) if lanes == FLOATS and known.fullmatch(line)), None)
    if place is None:
        return _elements(lanes, body, begin)
    found = known.fullmatch(body[place])
    assert found is not None
    short = "_bf16" if found["function"] == "rl_sigmoid" and _ROUNDED in body[-1] else ""
    held, before, after = f"{found['name']}_lanes", body[:place], body[place + 1 :]
    return [
        f"float {held}[{lanes}] __attribute__((aligned(64)));",
        *_elements(lanes, [*before, f"{held}[e] = {found['argument']};"], begin),
        f"{found['function']}_lanes{short}({held});",
        *_elements(lanes, [*before, f"const float {found['name']} = {held}[e];", *after], begin),
    ]


_LOOKED_UP = re.compile(r"const float (?P<name>\w+) = (?P<function>rl_gelu)\((?P<argument>.*)\);")
_ROUNDED = "] = (rl_bf16)"  # in what stores a result as bfloat16
_TOGETHER = re.compile(_LOOKED_UP.pattern.replace("rl_gelu", "rl_gelu|rl_sigmoid"))


def _elements(lanes: int, body: Sequence[str], begin: str) -> list[str]:
    inner = loop("e", 0, lanes, [f"const int64_t j = {begin} + e;", *body])
    return [in_vectors(VECTORIZE, body, lanes), *inner]


def clipped(variable: str, begin: int, end: int, low: str, high: str, body: Sequence[str]) -> list[str]:
    """The loop over [begin, end) that stays within [low, high)."""
    first = f"{low} > {begin} ? {low} : {begin}" if begin else low
    return loop(variable, first, f"({high} < {end} ? {high} : {end})", body)


def share(variable: str, part: str, count: int, parts: int | str, ends: tuple[str, str] = ("0", "1")) -> list[str]:
    """The range that is number ``part`` of ``parts`` nearly equal ones of [0, count): variables named with ``ends``."""
    begin, end = (variable + name for name in ends)
    if not is_open(parts) and parts == 1:
        return [f"const int64_t {begin} = 0, {end} = {count};"]
    return [f"const int64_t {begin} = {part} * {count} / {parts}, {end} = ({part} + 1) * {count} / {parts};"]


def shares(count: int, parts: int) -> list[tuple[int, int]]:
    """The ranges that ``share`` makes."""
    return list(pairwise(part * count // parts for part in range(parts + 1)))


def digits(variable: str, extents: Sequence[int]) -> list[str]:
    """The coordinates of the flat index ``variable`` in an array of ``extents``, none of which is 0."""
    texts, below = [], 1
    for position in range(len(extents) - 1, -1, -1):
        text = f"{variable} / {below}" if below != 1 else variable
        text = f"{text} % {extents[position]}" if position else text
        texts.append("0" if extents[position] == 1 else f"({text})")
        below *= extents[position]
    return texts[::-1]


def offset(coordinates: Sequence[str], strides: Sequence[int]) -> str:
    """The element offset of ``coordinates`` in a strided array."""
    terms = []
    for text, stride in zip(coordinates, strides, strict=True):
        if stride and text != "0":
            terms.append(text if stride == 1 else f"{text} * {stride}")
    return " + ".join(terms) or "0"
