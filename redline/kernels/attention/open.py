"""Attention with open lengths and batch: the blocks and tiles of every height, chosen at run time.

The queries of a head are cut, as a kernel made for their number would cut them, into blocks of nearly the same number of
vectors; the keys of a block, and its queries where values are summed, into tiles of nearly the same height. Keys and values
are read where they lie.

Ragged: a step is one sequence and one head, and walks the blocks of its queries. Starts and lengths are data, so they are
clamped to the tokens that there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redline.base.errors import BuildError
from redline.base.extents import ceil_div, high, is_open, minimum
from redline.kernels import cexpr, dot, tile
from redline.kernels.attention import c, schedule
from redline.kernels.attention.block import converted, each_lane, finish, softmax
from redline.kernels.attention.layout import Block, base, rounded
from redline.kernels.attention.problem import Problem
from redline.kernels.attention.schedule import CAUSAL_KEYS, CHUNKS_PER_THREAD, KEYS, VALUE_VECTORS, Schedule, must_stage
from redline.kernels.ctext import block, loop
from redline.kernels.parts import Part, any_open, coordinates, kernel
from redline.kernels.problem import CpuTarget, KernelCode
from redline.kernels.tile import Loop, Panels

LANES = ("top", "next", "sum", "shrink")
RAGGED_CHUNKS_PER_THREAD = 16  # sequences differ in length


@dataclass(frozen=True)
class OpenSchedule:
    """Blocks of at most ``query_vectors`` vectors of queries, and of ``keys`` keys."""

    query_vectors: int
    keys: int
    max_chunks: int


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule | OpenSchedule]:
    """The candidates, the best guess first; raises BuildError where the depth is open or values would have to be staged."""
    if not any_open(problem.reads, problem.writes):
        if problem.is_ragged:
            raise BuildError("attention", "sequences of closed lengths, one behind the other", "", "open their number")
        return schedule.schedules(problem, target)
    depths = (problem.reads[0].shape[3], problem.reads[2].shape[3])
    strides = [read.strides[3] for read in (*problem.reads[:3], problem.out)]
    if any(map(is_open, (*depths, *strides, problem.group))) or must_stage(problem, target):
        seen = f"attention of depths {depths} with strides {strides}"
        raise BuildError("attention", seen, "batch and lengths may be open", "fix the rest with --shapes")
    keys = min(high(problem.extents[3]), KEYS if problem.causal is None else CAUSAL_KEYS)
    if problem.is_ragged:  # its time is up to the data, so none is measured
        return [OpenSchedule(2, keys, RAGGED_CHUNKS_PER_THREAD * target.num_threads if target.num_threads > 1 else 1)]
    chunks = CHUNKS_PER_THREAD * target.num_threads if target.num_threads > 1 else 1
    return [OpenSchedule(vectors, keys, chunks) for vectors in (4, 2) if tile.tallest(vectors, target) > 1]


def render(problem: Problem, chosen: Schedule | OpenSchedule, target: CpuTarget) -> KernelCode:
    """The kernel for ``problem``, whether its lengths are open or not."""
    if isinstance(chosen, Schedule):
        return c.render(problem, chosen, target)
    g = _Layout(problem, chosen, target)
    num_chunks = minimum(g.num_steps, chosen.max_chunks)
    lines = [*g.dot.types(target), *_tiles(g), *_blocks(g), *kernel(problem.reads, problem.writes, _part(g), num_chunks)]
    text = "\n".join(lines) + "\n"
    return KernelCode("attention", cexpr.prelude(text) + text, num_chunks, g.scratch_bytes)


class _Layout:
    """What attention/layout.py is for closed lengths, as far as the shared pieces of text ask for it."""

    def __init__(self, problem: Problem, chosen: OpenSchedule, target: CpuTarget) -> None:
        self.problem, self.schedule, self.target = problem, chosen, target
        self.acc, self.type = problem.acc, problem.acc.c
        self.dot = dot.plain(self.acc)
        self.lanes = tile.lanes(problem.acc, target)
        self.depth, self.width = problem.reads[0].shape[3], problem.reads[2].shape[3]
        self.panels = Panels(self.width, VALUE_VECTORS * self.lanes, self.lanes)
        self.num_vectors = ceil_div(problem.extents[2], self.lanes)
        self.num_blocks = ceil_div(self.num_vectors, chosen.query_vectors)
        self.num_steps = problem.extents[0] * problem.extents[1] * self.num_blocks
        self.first, self.past = "0", str(problem.extents[3])  # C: the keys that a query sees
        if problem.is_ragged:
            self.num_sequences = problem.reads[-2].shape[0]
            self.num_steps = problem.extents[1] * self.num_sequences
            self.first, self.past = "first", "past"

    @property
    def most_lanes(self) -> int:
        return min(self.schedule.query_vectors, high(self.num_vectors)) * self.lanes

    @property
    def regions(self) -> list[tuple[str, int]]:
        """The arrays in scratch, in elements."""
        return [
            ("turned", self.depth * self.most_lanes), ("scores", self.schedule.keys * self.most_lanes),
            ("held", self.most_lanes * self.panels.padded), ("lanes", 4 * self.most_lanes),
        ]  # fmt: skip

    @property
    def scratch_bytes(self) -> int:
        return sum(rounded(elements) for _, elements in self.regions) * self.acc.size

    @property
    def vectors(self) -> range:
        """The numbers of vectors that a block may have."""
        return range(1, self.most_lanes // self.lanes + 1)


def _tiles(g: _Layout) -> list[str]:
    lines: list[str] = []
    for vectors in g.vectors:
        lines += _scores(g, vectors)
    for width in dict.fromkeys(width for width, _ in g.panels.kinds()):
        lines += _values(g, width)
    return lines


def _scores(g: _Layout, vectors: int) -> list[str]:
    """scores[j][q] of ``rows`` keys for a block of queries, for each number of rows."""
    lanes, key = vectors * g.lanes, g.problem.reads[1]
    head = (
        f"static __attribute__((noinline)) void score_{{}}_{lanes}(const {g.type} *x, const {g.type} *panel, {g.type} *scores"
    )
    head += ", const int64_t *dims)"
    lines, heights = [], range(1, tile.tallest(vectors, g.target) + 1)
    for rows in heights:
        offsets = [i * key.strides[2] for i in range(rows)]
        body = tile.inner_product(offsets, vectors, [Loop(g.depth, key.strides[3], lanes)], g.dot)
        body += [f"*(vec *)(scores + {i * lanes + v * g.lanes}) = acc[{i}][{v}];" for i in range(rows) for v in range(vectors)]
        lines += ["", *block(head.format(rows), ["(void)dims;", *body])]
    return lines + _by_height(
        head.format("x"), [f"case {n}: score_{n}_{lanes}(x, panel, scores, dims); break;" for n in heights]
    )


def _values(g: _Layout, width: int) -> list[str]:
    """held[q] of ``rows`` queries, scaled by ``shrink``, plus the products with ``count`` keys, for each number of rows."""
    vectors = width // g.lanes
    passed = "x, panel, shrink, held, count, step, dims"
    parameters = (
        f"const {g.type} *x, const {g.type} *panel, const {g.type} *shrink, {g.type} *held, int64_t count, int64_t step"
    )
    head = f"static __attribute__((noinline)) void value_{{}}_{width}({parameters}, const int64_t *dims)"
    walked: Any = Loop("count", "step", g.problem.reads[2].strides[2])  # type: ignore[arg-type]
    lines, heights = [], range(1, tile.tallest(vectors, g.target) + 1)
    for rows in heights:
        body = ["(void)dims;", *tile.inner_product(list(range(rows)), vectors, [walked], g.dot)]
        for i in range(rows):
            for v in range(vectors):
                place = f"(vec *)(held + {i * g.panels.padded + v * g.lanes})"
                body.append(f"*{place} = *{place} * shrink[{i}] + acc[{i}][{v}];")
        lines += ["", *block(head.format(rows), body)]
    return lines + _by_height(head.format("x"), [f"case {n}: value_{n}_{width}({passed}); break;" for n in heights])


def _by_height(head: str, cases: list[str]) -> list[str]:
    """The function that calls the tile of a height known at run time."""
    name, parameters = head.removeprefix("static __attribute__((noinline)) ").split("(", 1)
    return ["", *block(f"static inline {name}(int64_t rows, {parameters}", block("switch (rows)", cases))]


def _cover(count: str, tallest: int, call: str) -> list[str]:
    """Calls ``call`` for tiles of ``rows`` from row j on, nearly equal ones, until ``count`` rows are covered."""
    return block("", [
        f"const int64_t tiles = ({count} + {tallest - 1}) / {tallest}, height = ({count} + tiles - 1) / tiles;",
        f"const int64_t large = {count} - tiles * (height - 1);",
        *block("for (int64_t t = 0, j = 0; t < tiles; ++t)", [
            "const int64_t rows = t < large ? height : height - 1;", call, "j += rows;",
        ]),
    ])  # fmt: skip


def _blocks(g: _Layout) -> list[str]:
    return [line for vectors in g.vectors for line in ["", *_block(g, vectors)]]


def _block(g: _Layout, vectors: int) -> list[str]:
    """The function of a block of ``vectors`` vectors of queries, of which ``valid`` exist."""
    lanes = vectors * g.lanes
    kind: Any = Block(lanes, "valid", 1)  # type: ignore[arg-type]  # the number of queries is a variable of the function
    names = [f"{g.type} *restrict {name} = lanes + {i * g.most_lanes};" for i, name in enumerate(LANES)]
    clear = f"for (int64_t e = 0; e < {lanes * g.panels.padded}; ++e) held[e] = 0;"
    last = f"q0 + valid - 1 + {g.problem.causal}"
    walk = [
        f"const int64_t k1 = k0 + {g.schedule.keys} < {g.past} ? k0 + {g.schedule.keys} : {g.past};",
        *([f"if (k0 > {last}) break;"] if g.problem.causal is not None else []),
        *_key_block(g, vectors, kind),
    ]
    keys = block(f"for (int64_t k0 = {g.first}; k0 < {g.past}; k0 += {g.schedule.keys})", walk)
    begin = each_lane(lanes, "top[l] = -__builtin_inff(); sum[l] = 0;")
    return block(f"static __attribute__((noinline)) void block_{lanes}({', '.join(_parameters(g))})", [
        "(void)dims;", *names, begin, clear, *_turn(g, lanes), *keys, *finish(g, kind),
    ])  # fmt: skip


def _parameters(g: _Layout) -> list[str]:
    extra = [f"const {read.dtype.c} *restrict arg{i}" for i, read in enumerate(g.problem.reads)]
    places = [f"{g.type} *restrict {name}" for name, _ in g.regions]
    sources = [f"const {g.type} *keys", f"const {g.type} *values"]
    numbers = [f"int64_t {name}" for name in _numbers(g)]
    return [*places, *sources, *extra, f"{g.problem.out.dtype.c} *restrict out0", "const int64_t *restrict dims", *numbers]


def _numbers(g: _Layout) -> tuple[str, ...]:
    """What tells a block from others: batch, head, the first query and how many; ragged: the tokens of its sequence."""
    return ("b", "h", "q0", "valid", *(("first", "past") if g.problem.is_ragged else ()))


def _turn(g: _Layout, lanes: int) -> list[str]:
    """Transposes the queries; lanes beyond the last query hold zeros."""
    query = g.problem.reads[0]
    step, along = query.strides[2:]
    element = converted(g, query, f"q[l * {step} + d * {along}]")
    fill = f"turned[d * {lanes} + l] = {element};"
    plain = f"for (int64_t d = {{}}; d < {g.depth}; ++d) for (int64_t l = {{}}; l < valid; ++l) {fill}"
    zero = f"for (int64_t d = 0; d < {g.depth}; ++d) for (int64_t l = valid; l < {lanes}; ++l) turned[d * {lanes} + l] = 0;"
    lines = [f"const {query.dtype.c} *q = arg0 + {base(query, ['b', 'h', 'q0'])};"]
    if query.dtype.name == "float32" and along == 1 and g.depth % 16 == 0:
        fast = f"rl_transpose16_4(turned + d * {lanes} + l, {lanes}, q + l * {step} + d, {step});"
        lines.append("const int64_t whole = valid / 16 * 16;")
        lines.append(f"for (int64_t d = 0; d < {g.depth}; d += 16) for (int64_t l = 0; l < whole; l += 16) {fast}")
        return [*lines, plain.format(0, "whole"), zero]
    return [*lines, plain.format(0, 0), zero]


def _key_block(g: _Layout, vectors: int, kind: Block) -> list[str]:
    """The keys from k0 to k1: scores, softmax, and what is held grows by the weighted values."""
    lanes, (key, value) = vectors * g.lanes, g.problem.reads[1:3]
    call = f"score_x_{lanes}(rows, keys + (k0 + j) * {key.strides[2]}, turned, scores + j * {lanes}, dims);"
    lines = _cover("(k1 - k0)", tile.tallest(vectors, g.target), call)
    lines += softmax(g, kind)
    for number in range(g.panels.count):
        width = g.panels.width if number < g.panels.num_full else g.panels.last_width
        column = number * g.panels.width
        places = f"values + k0 * {value.strides[2]} + {column}, shrink + j, held + j * {g.panels.padded} + {column}"
        call = f"value_x_{width}(rows, scores + j, {places}, k1 - k0, {lanes}, dims);"
        lines += _cover("valid", tile.tallest(width // g.lanes, g.target), call)
    return lines


def _part(g: _Layout) -> Part:
    lines, place = [], 0
    for name, elements in g.regions:
        lines.append(f"{g.type} *restrict {name} = ({g.type} *)scratch + {place};")
        place += rounded(elements)
    if g.problem.is_ragged:
        return Part(g.num_steps, [*lines, *loop("step", "begin", "end", _sequence(g))])
    b, h, queries, _ = g.problem.extents
    cut = [f"const int64_t vectors = {g.num_vectors}, blocks = {g.num_blocks};", _nearly_equal()]
    body = [
        *coordinates("step", [("b", b), ("h", h), ("part", g.num_blocks)]),
        f"const int64_t g = h / {g.problem.group};",
        *_one_block(g, str(queries)),
    ]
    return Part(g.num_steps, [*lines, *cut, *loop("step", "begin", "end", body)])


def _nearly_equal() -> str:
    """C: ``size`` vectors in each of the ``large`` first blocks, one less in the others."""
    return "const int64_t size = (vectors + blocks - 1) / blocks, large = vectors - blocks * (size - 1);"


def _one_block(g: _Layout, past: str) -> list[str]:
    """C: computes block number ``part`` of the queries before ``past``."""
    key, value = g.problem.reads[1:3]
    sources = f"arg1 + {base(key, ['b', 'g'])}, arg2 + {base(value, ['b', 'g'])}"
    names = [*(name for name, _ in g.regions), sources, *(f"arg{i}" for i in range(len(g.problem.reads))), "out0", "dims"]
    arguments = ", ".join([*names, *_numbers(g)])
    begin = "first + " if g.problem.is_ragged else ""
    return [
        "const int64_t count = part < large ? size : size - 1;",
        f"const int64_t q0 = {begin}(part * (size - 1) + (part < large ? part : large)) * {g.lanes};",
        f"const int64_t valid = {past} - q0 < count * {g.lanes} ? {past} - q0 : count * {g.lanes};",
        *block("switch (count)", [f"case {n}: block_{n * g.lanes}({arguments}); break;" for n in g.vectors]),
    ]


def _sequence(g: _Layout) -> list[str]:
    """C: one head of one sequence, all of its blocks."""
    at = len(g.problem.reads) - 2
    start, count = (f"arg{at + i}[n * {g.problem.reads[at + i].strides[0]}]" for i in range(2))
    return [
        *coordinates("step", [("h", g.problem.extents[1]), ("n", g.num_sequences)]),
        f"const int64_t b = 0, g = h / {g.problem.group}, tokens = {g.problem.extents[2]};",
        f"const int64_t first = {start} < 0 ? 0 : {start} > tokens ? tokens : {start};",
        f"const int64_t own = {count} < 0 ? 0 : {count} > tokens - first ? tokens - first : {count}, past = first + own;",
        f"const int64_t vectors = (own + {g.lanes - 1}) / {g.lanes};",
        f"const int64_t blocks = (vectors + {g.schedule.query_vectors - 1}) / {g.schedule.query_vectors};",
        "if (!own) continue;",
        _nearly_equal(),
        *loop("part", 0, "blocks", _one_block(g, "past")),
    ]
