"""The C function of one block of queries of one head: transpose, then for each block of keys scores, softmax and sums."""

from redline.base.dtypes import float32, float64
from redline.kernels import cexpr, tile
from redline.kernels.attention.layout import Block, Layout, Sizes, base
from redline.kernels.attention.tiles import cover
from redline.kernels.ctext import VECTORIZE_LONG, block, loop, vectorized
from redline.kernels.problem import Operand
from redline.kernels.tile import Split

_LANES = ("top", "next", "sum", "shrink")


def blocks(g: Layout) -> list[str]:
    """The functions of all kinds of block."""
    return [line for kind in g.block_kinds for line in ["", *_block(g, kind)]]


def parameters(g: Layout) -> list[str]:
    extra = [f"const {read.dtype.c} *restrict arg{i}" for i, read in enumerate(g.problem.reads)]
    places = [f"{region.dtype.c} *restrict {region.name}" for region in g.regions[:5]]
    sources = [f"const {g.dot.x.c} *keys", f"const {g.dot.x.c} *values"]
    return [*places, *sources, *extra, f"{g.problem.out.dtype.c} *restrict out0", "int64_t b", "int64_t h", "int64_t q0"]


def lane_names(g: Layout) -> list[str]:
    """C: the rows of ``lanes``: the largest score so far and the next one, the sum of powers, what shrinks the past."""
    return [f"{g.type} *restrict {name} = lanes + {i * g.most_lanes};" for i, name in enumerate(_LANES)]


def _block(g: Layout, kind: Block) -> list[str]:
    head = f"static __attribute__((noinline)) void {kind.name}({', '.join(parameters(g))})"
    begin = "top[l] = -__builtin_inff(); sum[l] = 0;"
    clear = f"for (int64_t e = 0; e < {kind.lanes * g.panels.padded}; ++e) held[e] = 0;"
    walk = [
        *([f"if (k0 > q0 + {kind.valid - 1 + g.problem.causal}) break;"] if g.problem.causal is not None else []),
        *_key_block(g, kind),
    ]
    keys = block(f"for (int64_t part = 0; part < {g.keys.count}; ++part)", [
        f"const int64_t k0 = {_key(g, 'part')}, k1 = {_key(g, '(part + 1)')};", *walk,
    ])  # fmt: skip
    clear = "" if g.is_one_block else clear
    return block(head, [*lane_names(g), each_lane(kind.lanes, begin), clear, *turn(g, kind), *keys, *finish(g, kind)])


def _key(g: Layout, part: str) -> str:
    """C: the first key of block number ``part``."""
    begin = g.keys.begin(part)
    if g.dot.group == 1:
        return begin
    first = f"({begin}) * {g.dot.group}"
    return f"({first} < {g.num_keys} ? {first} : {g.num_keys})" if g.num_keys % g.dot.group else first


def turn(g: Layout, kind: Block) -> list[str]:
    """Transposes the queries; lanes beyond the last query hold zeros."""
    query = g.problem.reads[0]
    at = base(query, ["b", "h", "q0"])
    step, along = query.strides[2:]
    if g.dot.group > 1:
        return _turn_pairs(g, kind)
    fill = f"turned[d * {kind.lanes} + l] = {converted(g, query, f'q[l * {step} + d * {along}]')};"
    if kind.valid < kind.lanes:
        fill = f"if (l < {kind.valid}) {fill} else turned[d * {kind.lanes} + l] = 0;"
    plain = f"for (int64_t d = {{}}; d < {g.depth}; ++d) for (int64_t l = 0; l < {kind.lanes}; ++l) {fill}"
    lines = [f"const {query.dtype.c} *q = arg0 + {at};"]
    if query.dtype != float32 or along != 1 or kind.valid % 16 or kind.valid < kind.lanes:
        return [*lines, plain.format(0)]
    whole = g.depth // 16 * 16
    fast = f"rl_transpose16_4(turned + d * {kind.lanes} + l, {kind.lanes}, q + l * {step} + d, {step});"
    lines += [f"for (int64_t d = 0; d < {whole}; d += 16) for (int64_t l = 0; l < {kind.lanes}; l += 16) {fast}"]
    return lines + ([plain.format(whole)] if whole < g.depth else [])


def _turn_pairs(g: Layout, kind: Block) -> list[str]:
    """turned[d / 2][q][d % 2]: a pair moves as one word."""
    query, lanes, depth = g.problem.reads[0], kind.lanes, g.dot.steps(g.depth)
    step = query.strides[2]
    whole, full = depth // 16 * 16, kind.valid // 16 * 16
    fast = f"rl_transpose16_4(turned + (d * {lanes} + l) * 2, {lanes}, q + l * {step} + d * 2, {step // 2});"
    lines = [f"const {query.dtype.c} *q = arg0 + {base(query, ['b', 'h', 'q0'])};"]
    if step % 2:
        whole = full = 0
    if whole and full:
        lines.append(f"for (int64_t d = 0; d < {whole}; d += 16) for (int64_t l = 0; l < {full}; l += 16) {fast}")
    place = f"*(word *)&turned[(d * {lanes} + l) * 2] ="
    word = f"{place} *(const word *)&q[l * {step} + d * 2];"
    word = f"if (l < {kind.valid}) {word} else {place} 0;" if kind.valid < lanes else word
    for first_d, first_l in ((0, full), (whole, 0)):
        if first_d < depth and first_l < (lanes if not first_d else full):
            last_l = full if first_d else lanes
            lines.append(f"for (int64_t d = {first_d}; d < {depth}; ++d) for (int64_t l = {first_l}; l < {last_l}; ++l) {word}")
    return lines


def converted(g: Sizes, operand: Operand, element: str) -> str:
    """An element of query, key or value in the type of the sums."""
    return cexpr.cast_text(cexpr.from_storage(operand.dtype, element), operand.dtype, g.acc)


def _key_block(g: Layout, kind: Block) -> list[str]:
    """The keys from k0 to k1: scores, softmax, and what is held grows by the weighted values."""
    lines = []
    step, _ = g.key_strides
    call = f"(keys + (k0 + j) * {step}, turned, scores + j * {kind.lanes});"
    for name, cut in _by_key_count(g):
        tiles = Split.of_at_most(cut, tile.tallest(kind.lanes // g.lanes, g.target))
        lines += block(name, cover(tiles, f"score_{{}}_{kind.lanes}{call}"))
    lines += softmax(g, kind)
    for number in range(g.panels.count):
        width = g.panels.width if number < g.panels.num_full else g.panels.last_width
        column = number * g.panels.width
        tiles = Split.of_at_most(kind.valid, tile.tallest(width // g.lanes, g.target))
        count = f"(k1 - k0 + {g.dot.group - 1}) / {g.dot.group}" if g.dot.group > 1 else "k1 - k0"
        place = f"shrink + j, held + j * {g.panels.padded} + {column}, {count}"
        x = f"powers + j * {g.dot.group}" if g.dot.group > 1 else "scores + j"
        call = f"({x}, values + k0 * {g.value_stride} + {column * g.dot.group}, {place});"
        lines += block("", cover(tiles, f"value_{{}}_{width}_{kind.lanes}{call}"))
    return lines


def _by_key_count(g: Layout) -> list[tuple[str, int]]:
    """(C condition, keys in the block) of the distinct blocks of keys."""
    *others, last = g.key_counts
    return [(f"if (k1 - k0 == {count})", count) for count in others] + [("else" if others else "", last)]


def softmax(g: Sizes, kind: Block) -> list[str]:
    """Scores become powers of e, relative to the largest score seen so far; ``shrink`` is what that does to the past."""
    extents, lanes = g.problem.extents, kind.lanes
    names = ["b", "h", "i", "j"]
    renderer = cexpr.Renderer(g.problem.reads, names, [f"scores[r * {lanes} + l]"], extents=extents)
    statements, value = renderer.render(g.problem.score)
    if g.problem.causal is not None:
        value = f"(j <= i + {g.problem.causal} ? {value} : -__builtin_inff())"
    score = ["const int64_t i = q0 + l;", *statements, f"const {g.type} s = {value};"]
    score += [f"scores[r * {lanes} + l] = s;", "next[l] = s > next[l] ? s : next[l];"]
    valid = [VECTORIZE_LONG, *loop("l", 0, kind.valid, score)]
    move = f"const {g.type} was = top[l]; top[l] = next[l]; next[l] = next[l] == -__builtin_inff() ? 0 : next[l];"
    move += f" shrink[l] = {_exp(g, 'was - next[l]')}; sum[l] *= shrink[l];"
    return [
        each_lane(lanes, "next[l] = top[l];"),
        *block("for (int64_t r = 0; r < k1 - k0; ++r)", ["const int64_t j = k0 + r;", *valid]),
        VECTORIZE_LONG, each_lane(lanes, move),
        *_powers(g, lanes),
    ]  # fmt: skip


def _powers(g: Sizes, lanes: int) -> list[str]:
    """Scores become powers where they lie, or pairs of rounded ones."""
    power = "const {0} {1} = {2};"
    first = power.format(g.type, "p", _exp(g, f"scores[r * {lanes} + l] - next[l]"))
    if g.dot.group == 1:
        keep = [first, f"scores[r * {lanes} + l] = p;", "sum[l] += p;"]
        return block("for (int64_t r = 0; r < k1 - k0; ++r)", [VECTORIZE_LONG, *loop("l", 0, lanes, keep)])
    second = power.format(g.type, "other", _exp(g, f"scores[(r + 1) * {lanes} + l] - next[l]"))
    pair = f"*(word *)&powers[r * {lanes} + l * 2] = (int32_t)rl_bf16_pair(p, {{}});"
    both = [first, second, pair.format("other"), "sum[l] += p + other;"]
    return [
        "int64_t r = 0;",
        *block("for (; r + 1 < k1 - k0; r += 2)", [VECTORIZE_LONG, *loop("l", 0, lanes, both)]),
        *block("if (r < k1 - k0)", [VECTORIZE_LONG, *loop("l", 0, lanes, [first, pair.format("0.0f"), "sum[l] += p;"])]),
    ]


def _exp(g: Sizes, text: str) -> str:
    """e to a difference that is never above 0."""
    if g.acc == float64:
        return f"exp({text})"
    return f"rl_exp_below{'_short' if g.dot.group > 1 else ''}({text})"


def finish(g: Sizes, kind: Block) -> list[str]:
    out = g.problem.out
    at = base(out, ["b", "h", "(q0 + l)"])
    value = cexpr.cast_text(f"held[l * {g.panels.padded} + d] * share", g.acc, out.dtype)
    value = f"({value})" if out.dtype == g.acc else value
    store = cexpr.store(out, "out0", f"{at} + d * {out.strides[3]}", value)
    inner = [f"const {g.type} share = sum[l] == 0 ? 0 : 1 / sum[l];", *vectorized("d", 0, g.width, [store])]
    return loop("l", 0, kind.valid, inner)


def each_lane(lanes: int, statement: str) -> str:
    return f"for (int64_t l = 0; l < {lanes}; ++l) {{ {statement} }}"
