"""Attention in Triton, one block of queries a program: keys and values pass by in blocks, the softmax is kept as it goes.

m' = max(m, max of s);  p = exp(s - m');  l = l * exp(m - m') + sum p;  out = out * exp(m - m') + p @ v;  at the end out / l
"""

import math
from dataclasses import dataclass

from redline.base import dtypes
from redline.base.extents import dims_in, is_open, nominal
from redline.kernels import texpr, tgemm, ttext
from redline.kernels.attention import whole
from redline.kernels.attention.problem import Problem, plain_scale
from redline.kernels.expr import loads
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget, next_power
from redline.kernels.parts import any_open

LOG2E = math.log2(math.e)


@dataclass(frozen=True)
class Schedule:
    """Blocks of ``queries`` and ``keys``."""

    queries: int
    keys: int
    num_warps: int = 4
    num_stages: int = 2


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule | whole.Whole]:
    closed = not any_open(problem.reads, problem.writes)
    return [*(whole.candidates(problem, target) if closed else ()), *_blocks(problem, target)]


def _blocks(problem: Problem, target: GpuTarget) -> list[Schedule]:
    b, h, sq, sk = map(nominal, problem.extents)
    depth = next_power(max(problem.reads[0].shape[3], problem.reads[2].shape[3], 16))
    size = problem.reads[0].dtype.size
    found = []
    for queries, keys, warps, stages in (
        (64, 64, 4, 3), (128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 2), (64, 128, 4, 2), (128, 128, 8, 2), (64, 32, 4, 3),
        (32, 64, 4, 3), (16, 64, 4, 2), (32, 32, 2, 2), (16, 32, 2, 2),
    ):  # fmt: skip
        if queries > 2 * next_power(max(16, sq)) or keys > 2 * next_power(max(16, sk)):
            continue
        if (queries + 2 * stages * keys) * depth * size + queries * keys * size > target.shared_bytes:
            continue
        found.append(Schedule(queries, keys, warps, stages))
    waves = lambda s: -(-sq // s.queries) * b * h / target.processors  # noqa: E731
    return sorted(found, key=lambda s: (waves(s) < 0.75) * (s.queries > 16) * s.queries) or [Schedule(16, 16, 2, 1)]


def render(problem: Problem, s: Schedule | whole.Whole, target: GpuTarget) -> GpuCode:
    """Whole blocks of queries; those that are left over have a block of their own, as small as tensor cores allow."""
    if isinstance(s, whole.Whole):
        return whole.render(problem, s, target)
    p = problem
    b, h, sq, _sk = p.extents
    blocks, rest = (-(-sq // s.queries), 0) if is_open(sq) else divmod(sq, s.queries)
    params = [f"arg{i}" for i in range(len(p.reads))] + ["out0"]
    last = min(s.queries, max(16, next_power(rest)))
    kinds = [(s.queries, 0), (last, blocks * s.queries)] if rest and blocks and last < s.queries else []
    head, tail = [_queries(p, s, Part(size, first), target) for size, first in kinds] or ([], [])
    if kinds and not dims_in("\n".join([*head, *tail])):
        text = ttext.module(params, _either(f"tl.program_id(0) < {blocks}", params), {"whole": head, "left": tail})
    else:
        text = ttext.module(params, _queries(p, s, Part(s.queries, None), target))
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    return GpuCode("attention", text, signature, (blocks + (rest > 0), b * h, 1), s.num_warps, s.num_stages)


def _either(condition: str, params: list[str]) -> list[str]:
    return [f"if {condition}:", f"    whole({', '.join(params)})", "else:", f"    left({', '.join(params)})"]


@dataclass(frozen=True)
class Part:
    """A block of ``size`` queries. ``first``: all such blocks are whole (0), or this is the last and begins there.

    None: the only kind of block, the last of which may not be whole.
    """

    size: int
    first: int | None

    def is_ragged(self, queries: int) -> bool:
        """Whether rows may lie behind the last query."""
        if self.first == 0:
            return False
        return (queries - (self.first or 0)) % self.size != 0


def _queries(p: Problem, s: Schedule, part: Part, target: GpuTarget) -> list[str]:
    """What a program does with a block of queries."""
    query, _key, value = p.reads[:3]
    _b, h, sq, sk = p.extents
    depth, width = query.shape[3], value.shape[3]
    d, v = max(16, next_power(depth)), max(16, next_power(width))
    start = str(part.first) if part.first else f"tl.program_id(0) * {part.size}"
    body = [
        f"rm = {start} + tl.arange(0, {part.size})", f"rd = tl.arange(0, {d})",
        f"rv = tl.arange(0, {v})", f"n = tl.program_id(1) // {h}", f"g = tl.program_id(1) % {h}", f"kv = g // {p.group}",
        *ttext.wait(target),
    ]  # fmt: skip
    ragged = part.is_ragged(sq)
    q_mask = _mask([(ragged, f"(rm[:, None] < {sq})"), (depth % d, f"(rd[None, :] < {depth})")])
    at = "rm[:, None] * 0 + " if sq == 1 else ""  # a tile of rows, also where all of them are one
    body.append(f"q = tl.load(arg0 + {at}{texpr.offset(query, ['n', 'g', 'rm[:, None]', 'rd[None, :]'])}{q_mask})")
    body += [
        f'high = tl.full(({part.size},), float("-inf"), tl.float32)', f"total = tl.zeros(({part.size},), tl.float32)",
        f"acc = tl.zeros(({part.size}, {v}), tl.float32)",
    ]  # fmt: skip
    whole, left = _cut(sk, s.keys)
    if whole != 0:
        last = str(whole)
        if p.causal is not None:
            reached = f"({start} + {part.size + p.causal + s.keys - 1}) // {s.keys}"
            last = f"tl.minimum({whole}, tl.maximum({reached}, 0))"
        body.append(f"for j in range(0, {last}):")
        keys = _Keys(s.keys, f"j * {s.keys}", not is_open(sk) and whole * s.keys > sk)
        body += [f"    {line}" for line in _block(p, keys, ragged, d, v, target)]
    for first, size in left:
        body += _block(p, _Keys(size, str(first), first + size > sk), ragged, d, v, target)
    if is_open(sk) and sk % s.keys != 0:
        body.append(f"if {sk} % {s.keys} != 0:")
        body += [f"    {line}" for line in _block(p, _Keys(s.keys, f"{whole} * {s.keys}", True), ragged, d, v, target)]
    body += ["out = acc / tl.where(total == 0.0, 1.0, total)[:, None]"]
    conditions = [f"(rm[:, None] < {sq})"] if ragged else []
    if width % v:
        conditions.append(f"(rv[None, :] < {width})")
    body.append(
        texpr.store(f"out0 + {at[:-3]}" if at else "out0", p.out, ["n", "g", "rm[:, None]", "rv[None, :]"], "out", conditions)
    )
    return body


def _cut(count: int, size: int) -> tuple[int, list[tuple[int, int]]]:
    """Whole blocks of ``size``, and (start, size) of the smaller ones for what is left; of open counts the whole ones alone."""
    if is_open(count):
        return count // size, []
    whole, rest = divmod(count, size)
    left = [(whole * size, 64)] if rest >= 64 and size > 64 else []
    rest -= 64 * len(left)
    last = max(16, next_power(rest))
    if rest and last >= size:
        return whole + 1, []
    return whole, left + [(count - rest, last)] * (rest > 0)


@dataclass(frozen=True)
class _Keys:
    """A block of ``size`` keys from ``first`` on. ``is_ragged``: it reaches behind the last key."""

    size: int
    first: str
    is_ragged: bool


def _mask(parts: list[tuple[int, str]]) -> str:
    conditions = [text for rest, text in parts if rest]
    return f", mask={' & '.join(conditions)}, other=0" if conditions else ""


def _block(p: Problem, keys: _Keys, ragged: bool, d: int, v: int, target: GpuTarget) -> list[str]:
    """One block of keys and values. ``ragged``: there may be rows without a query."""
    _, key, value = p.reads[:3]
    _b, _h, sq, sk = p.extents
    depth, width = key.shape[3], value.shape[3]
    precision = ""
    if key.dtype == dtypes.float32:
        precision = ', input_precision="tf32"' if target.tf32 else ', input_precision="ieee"'
    close = "rl_tf32" if tgemm.rounds(key.dtype, target) else ""
    wide = ".to(tl.float32)" if target.plain and key.dtype == dtypes.bfloat16 else ""  # the interpreter multiplies no bfloat16
    k_mask = _mask([(keys.is_ragged, f"(rn[None, :] < {sk})"), (depth % d, f"(rd[:, None] < {depth})")])
    v_mask = _mask([(keys.is_ragged, f"(rn[:, None] < {sk})"), (width % v, f"(rv[None, :] < {width})")])
    lines = [
        f"rn = {keys.first} + tl.arange(0, {keys.size})",
        f"k = tl.load(arg1 + {texpr.offset(key, ['n', 'kv', 'rn[None, :]', 'rd[:, None]'])}{k_mask})",
        f"dot = tl.dot({close}(q){wide}, {close}(k){wide}{precision})",
    ]
    scale = plain_scale(p)
    if scale is not None:  # powers of two: the scale joins the exponent
        lines.append(f"score = dot * {scale * LOG2E!r}")
    else:
        guards = {}
        if ragged:
            guards[2] = f"(rm[:, None] < {sq})"
        if keys.is_ragged:
            guards[3] = f"(rn[None, :] < {sk})"
        names = ["n", "g", "rm[:, None]", "rn[None, :]"]
        renderer = texpr.Renderer(p.reads, names, p.extents, ["dot"], guards, exact=False)
        statements, score = renderer.render(p.score)
        lines += [*statements, f"score = {score}"]
    hidden = []
    if keys.is_ragged:
        hidden.append(f"(rn[None, :] < {sk})")
    if p.causal is not None:
        hidden.append(f"(rn[None, :] <= rm[:, None] + {p.causal})")
    if hidden:
        lines.append(f'score = tl.where({" & ".join(hidden)}, score, float("-inf"))')
    rises = bool(hidden) or bool(loads(p.score)) or scale is None
    lines.append("peak = tl.maximum(high, tl.max(score, 1))")
    base = 'tl.where(peak == float("-inf"), 0.0, peak)' if rises else "peak"
    unit = "" if scale is not None else f" * {LOG2E!r}"
    lines += [
        f"base = {base}", f"power = tl.exp2((score - base[:, None]){unit})", f"shrink = tl.exp2((high - base){unit})",
        "total = total * shrink + tl.sum(power, 1)",
        f"v = tl.load(arg2 + {texpr.offset(value, ['n', 'kv', 'rn[:, None]', 'rv[None, :]'])}{v_mask})",
        f"acc = tl.dot({close}(power.to({texpr.TYPES[value.dtype.name]})){wide}, {close}(v){wide}, "
        f"acc * shrink[:, None]{precision})",
        "high = peak",
    ]  # fmt: skip
    return lines


FAMILY = GpuFamily("attention", schedules, render, opens=True)
