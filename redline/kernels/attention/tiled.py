"""Attention on the matrix unit (kernels/amx.py). A step is one head and one block of queries, as in attention/c.py:

    turned[d / 2][q][2]   pairs of the queries, transposed once a block
    scores[j][q]          = sum over d of key[j][d] * turned[d][q]: rows of tiles are keys, read where they lie
    the softmax           across lanes: every query has a lane of its own; powers[j / 2][q][2] are rounded pairs
    held[d][q]            += sum over j of values[d][j] * powers[j][q]: rows of tiles are columns of the values, which are
                          transposed once a head
    out[q][d]             = held[d][q] / sum of q, transposed in pairs

All registers have the shapes of one configuration: keys are cut into blocks of whole steps, and where the last step has
keys that do not exist, values and powers hold zeros. Tiles of keys are of one height: the last one begins at keys that
belong to the one before and computes their scores again.
"""

from functools import cached_property

from redline.base.dtypes import bfloat16
from redline.kernels import amx, cexpr
from redline.kernels.attention.block import each_lane, lane_names, parameters, turn
from redline.kernels.attention.layout import Block, Layout, Region, base
from redline.kernels.attention.problem import Problem
from redline.kernels.attention.schedule import VALUE_VECTORS, Schedule, query_blocks, way
from redline.kernels.attention.tiled_softmax import softmax
from redline.kernels.ctext import block, loop, vectorized
from redline.kernels.dot import groups_at_once
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Panels, Split

BANDS = 2  # of rows, and vectors of columns, of a register tile
LANES, PAIR = amx.LANES, 2
SPAN = LANES * PAIR  # keys whose values are transposed at once, and columns of the result


class TiledLayout(Layout):
    """The sizes where products are those of tiles. ``keys`` are blocks in steps, of ``step_keys`` each."""

    def __init__(self, problem: Problem, schedule: Schedule, target: CpuTarget) -> None:
        self.problem, self.schedule, self.target = problem, schedule, target
        self.acc, self.type, self.dot, self.lanes = problem.acc, problem.acc.c, way(problem, schedule), LANES
        self.queries = query_blocks(problem, schedule, target)
        self.depth, self.width = problem.reads[0].shape[3], problem.reads[2].shape[3]
        self.panels = Panels(self.width, VALUE_VECTORS * self.lanes, self.lanes)
        self.num_steps = problem.extents[0] * problem.extents[1] * self.queries.count
        self.groups = groups_at_once(self.depth // PAIR)
        self.keys = Split.of_at_most(-(-self.num_keys // self.step_keys), -(-schedule.keys // self.step_keys))

    @property
    def step_keys(self) -> int:
        """Keys whose weighted values one instruction sums."""
        return self.groups * PAIR

    @cached_property
    def ends(self) -> list[int]:
        """Where the blocks of keys end."""
        starts = [sum(self.keys.of(i) for i in range(part + 1)) for part in range(self.keys.count)]
        return [min(steps * self.step_keys, self.num_keys) for steps in starts]

    @property
    def key_counts(self) -> list[int]:
        return list(dict.fromkeys(end - begin for begin, end in zip([0, *self.ends], self.ends, strict=False)))

    @property
    def height(self) -> int:
        """Rows of every tile."""
        return min(amx.ROWS, *self.key_counts)

    @property
    def value_bands(self) -> int:
        return -(-self.width // self.height)

    @property
    def value_rows(self) -> int:
        """Rows of the transposed values: all that tiles read."""
        return max(self.value_bands * self.height, self.panels.padded)

    @property
    def value_stride(self) -> int:
        """From one of these rows to the next: an odd number of cache lines, so that rows spread over the cache."""
        return (self.spans | 1) * SPAN

    @property
    def spans(self) -> int:
        """Groups of keys whose values are transposed at once, with those that fill the last step."""
        steps = -(-self.num_keys // self.step_keys)
        return -(-steps * self.step_keys // SPAN)

    @property
    def tiles(self) -> amx.Tiles:
        return amx.Tiles((self.height,) * BANDS, BANDS, self.groups, self.dot)

    @property
    def regions(self) -> list[Region]:
        keys, narrow, most = self.keys.size * self.step_keys, self.dot.x, self.most_lanes
        return [
            Region("turned", narrow, self.depth * most), Region("scores", self.acc, max(keys * most, 2 * LANES * LANES)),
            Region("powers", narrow, keys * most), Region("held", self.acc, self.value_rows * most),
            Region("lanes", self.acc, 4 * most), Region("keys", narrow, 0),
            Region("values", narrow, self.value_rows * self.value_stride),
        ]  # fmt: skip


def tiles(g: TiledLayout) -> list[str]:
    """The functions of every register tile."""
    lines = []
    for lanes in dict.fromkeys(kind.lanes for kind in g.block_kinds):
        for vectors in dict.fromkeys(_vectors(lanes)):
            for bands in range(1, BANDS + 1):
                lines += _score_tile(g, bands, vectors, lanes) + _value_tile(g, bands, vectors, lanes)
    return lines


def _vectors(lanes: int) -> list[int]:
    """The vectors of the register tiles that cover a row."""
    whole, rest = divmod(lanes // LANES, BANDS)
    return [BANDS] * whole + [1] * (rest > 0)


def _score_tile(g: TiledLayout, bands: int, vectors: int, lanes: int) -> list[str]:
    """The scores of one or two tiles of keys, x0 and x1, with ``vectors`` of the queries."""
    step, steps = g.groups * PAIR, g.depth // g.step_keys
    body = _zero(g, bands, vectors)
    each = _products(g, bands, vectors, lanes, [f"x{b}" for b in range(bands)], g.problem.reads[1].strides[2], f"k * {step}")
    body += loop("k", 0, steps, each)
    body += [amx.store(g.tiles.sum(b, v), f"to{b} + {v * LANES}", lanes * 4) for b in range(bands) for v in range(vectors)]
    x = ", ".join(f"const {g.dot.x.c} *x{b}" for b in range(bands))
    to = ", ".join(f"{g.type} *to{b}" for b in range(bands))
    head = f"static __attribute__((noinline)) void score_{bands}_{vectors}_{lanes}"
    return ["", *block(f"{head}({x}, const {g.dot.x.c} *panel, {to})", body)]


def _value_tile(g: TiledLayout, bands: int, vectors: int, lanes: int) -> list[str]:
    """Tiles of held, plus the products of values and powers of ``count`` steps."""
    places = [(b, v, f"held + {b * g.height * lanes + v * LANES}") for b in range(bands) for v in range(vectors)]
    body = _zero(g, bands, vectors) if g.is_one_block else [
        amx.load(g.tiles.sum(b, v), place, 0, lanes * 4) for b, v, place in places
    ]  # fmt: skip
    x = ["x", f"(x + {g.height * g.value_stride})"]
    body += loop("k", 0, "count", _products(g, bands, vectors, lanes, x[:bands], g.value_stride, f"k * {g.step_keys}"))
    body += [amx.store(g.tiles.sum(b, v), place, lanes * 4) for b, v, place in places]
    head = f"static __attribute__((noinline)) void value_{bands}_{vectors}_{lanes}"
    return ["", *block(f"{head}(const {g.dot.x.c} *x, const {g.dot.x.c} *panel, {g.type} *held, int64_t count)", body)]


def _zero(g: TiledLayout, bands: int, vectors: int) -> list[str]:
    return [amx.zero(g.tiles.sum(b, v)) for b in range(bands) for v in range(vectors)]


def _products(
    g: TiledLayout, bands: int, vectors: int, lanes: int, x: list[str], stride: int, at: str
) -> list[str]:  # fmt: skip
    """C: one step: every band of x times every vector of the panel."""
    size = g.dot.x.size
    lines = [f"const {g.dot.x.c} *const wk = panel + k * {g.groups * lanes * PAIR};"]
    lines += [amx.load(g.tiles.w(v), "wk", v * LANES * PAIR * size, lanes * PAIR * size) for v in range(vectors)]
    for b in range(bands):
        lines.append(amx.load(g.tiles.x(b), f"{x[b]} + {at}", 0, stride * size))
        lines += [amx.multiply(g.dot, g.tiles.sum(b, v), g.tiles.x(b), g.tiles.w(v)) for v in range(vectors)]
    return lines


def blocks(g: TiledLayout) -> list[str]:
    """The functions of all kinds of block."""
    return [line for kind in g.block_kinds for line in ["", *_block(g, kind)]]


def _block(g: TiledLayout, kind: Block) -> list[str]:
    head = f"static __attribute__((noinline)) void {kind.name}({', '.join(parameters(g))})"
    begin = each_lane(kind.lanes, "top[l] = -__builtin_inff(); sum[l] = 0;")
    clear = "" if g.is_one_block else f"for (int64_t e = 0; e < {g.value_rows * kind.lanes}; ++e) held[e] = 0;"
    causal = g.problem.causal
    seen = [f"if (k0 > q0 + {kind.valid - 1 + causal}) break;"] if causal is not None else []
    keys = block(f"for (int64_t part = 0; part < {g.keys.count}; ++part)", [
        f"const int64_t k0 = {_key(g, 'part')}, k1 = {_key(g, '(part + 1)')};", *seen, *_key_block(g, kind),
    ])  # fmt: skip
    return block(head, [*lane_names(g), begin, clear, *turn(g, kind), *keys, *_finish(g, kind)])


def _key(g: TiledLayout, part: str) -> str:
    """C: the first key of block number ``part``."""
    first = f"({g.keys.begin(part)}) * {g.step_keys}"
    return f"({first} < {g.num_keys} ? {first} : {g.num_keys})"


def _key_block(g: TiledLayout, kind: Block) -> list[str]:
    """The keys from k0 to k1: scores, softmax, and what is held grows by the weighted values."""
    lines = []
    *others, last = g.key_counts
    for count in others:
        lines += block(f"if (k1 - k0 == {count})", _scores(g, kind, count))
    lines += block("else" if others else "", _scores(g, kind, last))
    lines += softmax(g, kind)
    row = f"for (int64_t l = 0; l < {kind.lanes}; ++l)"
    pairs = f"count * {g.groups}"
    lines.append(f"const int64_t count = (k1 - k0 + {g.step_keys - 1}) / {g.step_keys};")
    lines.append(
        f"for (int64_t p = (k1 - k0 + 1) / 2; p < {pairs}; ++p) {row} *(word *)&powers[(p * {kind.lanes} + l) * 2] = 0;"
    )
    if not g.is_one_block:
        lines.append(f"for (int64_t d = 0; d < {g.width}; ++d) {row} held[d * {kind.lanes} + l] *= shrink[l];")
    return lines + _values(g, kind)


def _scores(g: TiledLayout, kind: Block, count: int) -> list[str]:
    """C: the scores of ``count`` keys, in pairs of tiles; the last tile ends with the last key."""
    height, lines = g.height, []
    whole = count // (BANDS * height) * BANDS * height
    starts = [f"j + {b * height}" for b in range(BANDS)]
    if whole:
        lines += block(f"for (int64_t j = 0; j < {whole}; j += {BANDS * height})", _score_calls(g, kind, starts))
    last = dict.fromkeys(min(first, count - height) for first in range(whole, count, height))
    return lines + (_score_calls(g, kind, [str(first) for first in last]) if last else [])


def _score_calls(g: TiledLayout, kind: Block, starts: list[str]) -> list[str]:
    """C: tiles of keys that begin at ``starts``, with all queries."""
    step, first, lines = g.problem.reads[1].strides[2], 0, []
    x = ", ".join(f"keys + (k0 + {start}) * {step}" for start in starts)
    for vectors in _vectors(kind.lanes):
        to = ", ".join(f"scores + ({start}) * {kind.lanes} + {first}" for start in starts)
        lines.append(f"score_{len(starts)}_{vectors}_{kind.lanes}({x}, turned + {first * PAIR}, {to});")
        first += vectors * LANES
    return lines


def _values(g: TiledLayout, kind: Block) -> list[str]:
    lines, first = [], 0
    for vectors in _vectors(kind.lanes):
        for band in range(0, g.value_bands, BANDS):
            bands, row = min(BANDS, g.value_bands - band), band * g.height
            x = f"values + {row * g.value_stride} + k0, powers + {first * PAIR}"
            lines.append(f"value_{bands}_{vectors}_{kind.lanes}({x}, held + {row * kind.lanes + first}, count);")
        first += vectors * LANES
    return lines


def _finish(g: TiledLayout, kind: Block) -> list[str]:
    """C: what is held, divided by the sums of the powers, into ``out``; pairs of columns move as words."""
    lines = [each_lane(kind.lanes, "shrink[l] = sum[l] == 0 ? 0 : 1 / sum[l];")]
    out = g.problem.out
    in_pairs = out.dtype == bfloat16 and out.strides[3] == 1 and out.strides[2] % PAIR == 0
    whole = g.width // SPAN * SPAN if in_pairs else 0
    at = base(out, ["b", "h", "(q0 + l)"])
    if whole:
        lines += loop("d", 0, whole // SPAN, loop("v", 0, kind.lanes // LANES, _pairs_out(g, kind, at)))
    if whole < g.width:
        value = cexpr.cast_text(f"held[d * {kind.lanes} + l] * shrink[l]", g.acc, out.dtype)
        store = cexpr.store(out, "out0", f"{at} + d * {out.strides[3]}", f"({value})" if out.dtype == g.acc else value)
        lines += loop("l", 0, kind.valid, loop("d", whole, g.width, [store]))
    return lines


def _pairs_out(g: TiledLayout, kind: Block, at: str) -> list[str]:
    """C: 32 columns ``d`` of 16 queries ``v``; ``scores`` are no longer needed."""
    out = g.problem.out
    words, low = "(uint32_t *)scores", f"held[(d * {SPAN} + 2 * p) * {kind.lanes} + l] * shrink[l]"
    high = f"held[(d * {SPAN} + 2 * p + 1) * {kind.lanes} + l] * shrink[l]"
    word = f"words[p * {LANES} + e] = rl_to_bf16({low}) | (uint32_t)rl_to_bf16({high}) << 16;"
    each = vectorized("e", 0, LANES, [f"const int64_t l = v * {LANES} + e;", word])
    lines = [f"uint32_t *restrict words = {words};", *loop("p", 0, LANES, each), f"const int64_t l = v * {LANES};"]
    place, step = f"out0 + {at} + d * {SPAN}", out.strides[2] // PAIR
    if kind.valid == kind.lanes:
        return [*lines, f"rl_transpose16_4({place}, {step}, words, {LANES});"]
    rest = f"const int64_t rows = {kind.valid} - l < {LANES} ? {kind.valid} - l : {LANES};"
    copy = f"__builtin_memcpy({place} + r * {out.strides[2]}, words + {LANES * LANES} + r * {LANES}, {4 * LANES});"
    return [
        *lines, f"rl_transpose16_4(words + {LANES * LANES}, {LANES}, words, {LANES});", rest, *loop("r", 0, "rows", [copy]),
    ]  # fmt: skip


def stage(g: TiledLayout) -> list[str]:
    """C: values[d][j], 16 columns of 32 keys at a time, with zeros where there is no such key or column."""
    value, stride = g.problem.reads[2], g.value_stride
    element = f"v[({{}}) * {value.strides[2]} + (d + e) * {value.strides[3]}]"
    low, high = element.format("j + 2 * p"), element.format("j + 2 * p + 1")
    pair = vectorized("e", 0, LANES, [f"words[p * {LANES} + e] = {low} | (uint32_t){high} << 16;"])
    inside = f"j + 2 * p + {{}} < {g.num_keys} && d + e < {g.width}"
    careful = f"words[p * {LANES} + e] = ({inside.format(0)} ? {low} : 0) | ({inside.format(1)} ? (uint32_t){high} << 16 : 0);"
    each = [
        *block(f"if (j + {SPAN} <= {g.num_keys} && d + {LANES} <= {g.width})", loop("p", 0, LANES, pair)),
        *block("else", loop("p", 0, LANES, loop("e", 0, LANES, [careful]))),
        f"rl_transpose16_4(values + d * {stride} + j, {stride // PAIR}, words, {LANES});",
    ]
    return [
        f"const {value.dtype.c} *v = arg2 + {base(value, ['b', 'g'])};", "uint32_t *restrict words = (uint32_t *)scores;",
        *block(f"for (int64_t d = 0; d < {g.panels.padded}; d += {LANES})", block(
            f"for (int64_t j = 0; j < {g.spans * SPAN}; j += {SPAN})", each,
        )),
    ]  # fmt: skip
