"""The C text of attention. A step is one head and one block of queries; vectors run across the queries of the block.

    turned[d][q]   the queries, transposed once a block
    scores[j][q]   = sum over d of key[j][d] * turned[d][q]: a register tile whose scalars are elements of the keys
    the softmax    across lanes: every query has a lane of its own, so nothing is ever summed across a vector
    held[q][d]     += sum over j of scores[j][q] * value[j][d]: a register tile whose scalars are elements of the scores

Keys come in blocks; when a later block raises a query's maximum, what is held is scaled down (online softmax, Milakov and
Gimelshein 2018), so the whole matrix of scores never exists.
"""

from dataclasses import dataclass

from redline.base.dtypes import float32, float64
from redline.base.shapes import size
from redline.kernels import cexpr, dot, tile
from redline.kernels.attention.problem import Problem
from redline.kernels.attention.schedule import VALUE_VECTORS, Schedule, query_blocks
from redline.kernels.ctext import VECTORIZE_LONG, block, loop, offset, vectorized
from redline.kernels.parts import Part, coordinates, kernel, once
from redline.kernels.problem import CpuTarget, KernelCode, Operand
from redline.kernels.tile import Loop, Panels, Split


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    if size(problem.out.shape) == 0:
        text = "\n".join(kernel(problem.reads, problem.writes, once([]), 1)) + "\n"
        return KernelCode("attention", cexpr.prelude(text) + text, 1)
    made = _Kernel(problem, schedule, target)
    num_chunks = min(schedule.max_chunks, made.num_steps)
    lines = [*made.dot.types(target), *made.tiles(), *made.blocks()]
    lines += kernel(problem.reads, problem.writes, made.part(), num_chunks)
    text = "\n".join(lines) + "\n"
    return KernelCode("attention", cexpr.prelude(text) + text, num_chunks, made.scratch_bytes)


@dataclass(frozen=True)
class _Block:
    """``lanes`` queries of which ``valid`` exist."""

    lanes: int
    valid: int

    @property
    def name(self) -> str:
        return f"block_{self.lanes}_{self.valid}"


class _Kernel:
    def __init__(self, problem: Problem, schedule: Schedule, target: CpuTarget) -> None:
        self.problem, self.schedule, self.target = problem, schedule, target
        self.acc, self.type = problem.acc, problem.acc.c
        self.dot = dot.plain(self.acc)
        self.lanes = tile.lanes(problem.acc, target)
        self.queries = query_blocks(problem, schedule, target)
        self.keys = Split.of_at_most(problem.extents[3], schedule.keys)
        self.depth, self.width = problem.reads[0].shape[3], problem.reads[2].shape[3]
        self.panels = Panels(self.width, VALUE_VECTORS * self.lanes, self.lanes)
        self.num_steps = problem.extents[0] * problem.extents[1] * self.queries.count

    # --- sizes --------------------------------------------------------------------------------------------------------

    @property
    def num_keys(self) -> int:
        return self.problem.extents[3]

    @property
    def most_lanes(self) -> int:
        return self.queries.size * self.lanes

    @property
    def regions(self) -> list[tuple[str, int]]:
        """The arrays in scratch, in elements."""
        staged = self.num_keys if self.schedule.stage else 0
        return [
            ("turned", self.depth * self.most_lanes), ("scores", self.keys.size * self.most_lanes),
            ("held", self.most_lanes * self.panels.padded), ("lanes", 4 * self.most_lanes),
            ("keys", staged * self.depth), ("values", staged * self.panels.padded),
        ]  # fmt: skip

    @property
    def scratch_bytes(self) -> int:
        return sum(_rounded(elements) for _, elements in self.regions) * self.acc.size

    @property
    def block_kinds(self) -> list[_Block]:
        """The distinct blocks of queries; only the last one may hold fewer queries than lanes."""
        kinds = [_Block(vectors * self.lanes, vectors * self.lanes) for vectors in self.queries.sizes]
        rest = self.problem.extents[2] % self.lanes
        last = self.queries.sizes[-1] * self.lanes
        return kinds + ([_Block(last, last - self.lanes + rest)] if rest else [])

    @property
    def key_strides(self) -> tuple[int, int]:
        """Elements from key to key and along a key, where the tile reads them."""
        return (self.depth, 1) if self.schedule.stage else (self.problem.reads[1].strides[2], self.problem.reads[1].strides[3])

    @property
    def value_stride(self) -> int:
        return self.panels.padded if self.schedule.stage else self.problem.reads[2].strides[2]

    # --- tiles --------------------------------------------------------------------------------------------------------

    def tiles(self) -> list[str]:
        lines = []
        for vectors in dict.fromkeys(kind.lanes // self.lanes for kind in self.block_kinds):
            for rows in self._sizes(self.keys.sizes, vectors):
                lines += self._score_tile(rows, vectors)
        for kind in self.block_kinds:
            for width, _ in self.panels.kinds():
                for rows in self._sizes([kind.valid], width // self.lanes):
                    lines += self._value_tile(rows, width, kind.lanes)
        return list(_without_repeats(lines))

    def _sizes(self, counts: "list[int] | tuple[int, ...]", vectors: int) -> list[int]:
        """The heights of tiles that cover each of ``counts`` rows."""
        tallest = tile.tallest(vectors, self.target)
        return list(dict.fromkeys(rows for count in counts for rows in Split.of_at_most(count, tallest).sizes))

    def _score_tile(self, rows: int, vectors: int) -> list[str]:
        step, along = self.key_strides
        lanes = vectors * self.lanes
        body = tile.inner_product([i * step for i in range(rows)], vectors, [Loop(self.depth, along, lanes)], self.dot)
        body += [
            f"*(vec *)(scores + {i * lanes + v * self.lanes}) = acc[{i}][{v}];" for i in range(rows) for v in range(vectors)
        ]
        head = f"static __attribute__((noinline)) void score_{rows}_{lanes}"
        return ["", *block(f"{head}(const {self.type} *x, const {self.type} *panel, {self.type} *scores)", body)]

    def _value_tile(self, rows: int, width: int, lanes: int) -> list[str]:
        """``rows`` of held, scaled by ``shrink``, plus the products with ``count`` keys."""
        vectors = width // self.lanes
        body = tile.inner_product(list(range(rows)), vectors, [Loop(-1, lanes, self.value_stride)], self.dot)
        for i in range(rows):
            for v in range(vectors):
                place = f"(vec *)(held + {i * self.panels.padded + v * self.lanes})"
                body.append(f"*{place} = *{place} * shrink[{i}] + acc[{i}][{v}];")
        parameters = f"const {self.type} *x, const {self.type} *panel, const {self.type} *shrink, {self.type} *held"
        head = f"static __attribute__((noinline)) void value_{rows}_{width}_{lanes}({parameters}, int64_t count)"
        return ["", *block(head, [line.replace("< -1;", "< count;") for line in body])]

    # --- blocks -------------------------------------------------------------------------------------------------------

    def blocks(self) -> list[str]:
        return [line for kind in self.block_kinds for line in ["", *self._block(kind)]]

    def _parameters(self) -> list[str]:
        extra = [f"const {read.dtype.c} *restrict arg{i}" for i, read in enumerate(self.problem.reads)]
        places = [f"{self.type} *restrict {name}" for name, _ in self.regions[:4]]
        sources = [f"const {self.type} *keys", f"const {self.type} *values"]
        return [*places, *sources, *extra, f"{self.problem.out.dtype.c} *restrict out0", *_int64("b", "h", "q0")]

    def _block(self, kind: _Block) -> list[str]:
        head = f"static __attribute__((noinline)) void {kind.name}({', '.join(self._parameters())})"
        names = [f"{self.type} *restrict {name} = lanes + {i * self.most_lanes};" for i, name in enumerate(_LANES)]
        begin = "top[l] = -__builtin_inff(); sum[l] = 0;"
        clear = f"for (int64_t e = 0; e < {kind.lanes * self.panels.padded}; ++e) held[e] = 0;"
        walk = [
            *([f"if (k0 > q0 + {kind.valid - 1 + self.problem.causal}) break;"] if self.problem.causal is not None else []),
            *self._key_block(kind),
        ]
        keys = block(f"for (int64_t part = 0; part < {self.keys.count}; ++part)", [
            f"const int64_t k0 = {self.keys.begin('part')}, k1 = {self.keys.begin('(part + 1)')};", *walk,
        ])  # fmt: skip
        return block(head, [*names, _each_lane(kind.lanes, begin), clear, *self._turn(kind), *keys, *self._finish(kind)])

    def _turn(self, kind: _Block) -> list[str]:
        query = self.problem.reads[0]
        at = _base(query, ["b", "h", "q0"], 3)
        step, along = query.strides[2:]
        fill = f"turned[d * {kind.lanes} + l] = {self._converted(query, f'q[l * {step} + d * {along}]')};"
        if kind.valid < kind.lanes:
            fill = f"if (l < {kind.valid}) {fill} else turned[d * {kind.lanes} + l] = 0;"
        plain = f"for (int64_t d = {{}}; d < {self.depth}; ++d) for (int64_t l = 0; l < {kind.lanes}; ++l) {fill}"
        lines = [f"const {query.dtype.c} *q = arg0 + {at};"]
        if query.dtype != float32 or along != 1 or kind.valid % 16 or kind.valid < kind.lanes:
            return [*lines, plain.format(0)]
        whole = self.depth // 16 * 16
        fast = f"rl_transpose16_4(turned + d * {kind.lanes} + l, {kind.lanes}, q + l * {step} + d, {step});"
        lines += [f"for (int64_t d = 0; d < {whole}; d += 16) for (int64_t l = 0; l < {kind.lanes}; l += 16) {fast}"]
        return lines + ([plain.format(whole)] if whole < self.depth else [])

    def _converted(self, operand: Operand, element: str) -> str:
        return cexpr.cast_text(cexpr.from_storage(operand.dtype, element), operand.dtype, self.acc)

    def _key_block(self, kind: _Block) -> list[str]:
        lines = []
        step, _ = self.key_strides
        call = f"(keys + (k0 + j) * {step}, turned, scores + j * {kind.lanes});"
        for name, cut in self._by_key_count():
            tiles = Split.of_at_most(cut, tile.tallest(kind.lanes // self.lanes, self.target))
            lines += block(name, _cover(tiles, f"score_{{}}_{kind.lanes}{call}"))
        lines += self._softmax(kind)
        for number in range(self.panels.count):
            width = self.panels.width if number < self.panels.num_full else self.panels.last_width
            column = number * self.panels.width
            tiles = Split.of_at_most(kind.valid, tile.tallest(width // self.lanes, self.target))
            place = f"shrink + j, held + j * {self.panels.padded} + {column}, k1 - k0"
            call = f"(scores + j, values + k0 * {self.value_stride} + {column}, {place});"
            lines += block("", _cover(tiles, f"value_{{}}_{width}_{kind.lanes}{call}"))
        return lines

    def _by_key_count(self) -> list[tuple[str, int]]:
        """(C condition, keys in the block) of the distinct blocks of keys."""
        if len(self.keys.sizes) == 1:
            return [("", self.keys.size)]
        large, small = self.keys.sizes
        return [(f"if (k1 - k0 == {large})", large), ("else", small)]

    def _softmax(self, kind: _Block) -> list[str]:
        """Scores become powers of e, relative to the largest score seen so far; ``shrink`` is what that does to the past."""
        extents, lanes = self.problem.extents, kind.lanes
        names = ["b", "h", "i", "j"]
        renderer = cexpr.Renderer(self.problem.reads, names, [f"scores[r * {lanes} + l]"], extents=extents)
        statements, value = renderer.render(self.problem.score)
        if self.problem.causal is not None:
            value = f"(j <= i + {self.problem.causal} ? {value} : -__builtin_inff())"
        score = ["const int64_t i = q0 + l;", *statements, f"const {self.type} s = {value};"]
        score += [f"scores[r * {lanes} + l] = s;", "next[l] = s > next[l] ? s : next[l];"]
        valid = [VECTORIZE_LONG, *loop("l", 0, kind.valid, score)]
        power = [f"const {self.type} p = {self._exp(f'scores[r * {lanes} + l] - next[l]')};"]
        power += [f"scores[r * {lanes} + l] = p;", "sum[l] += p;"]
        move = f"const {self.type} was = top[l]; top[l] = next[l]; next[l] = next[l] == -__builtin_inff() ? 0 : next[l];"
        move += f" shrink[l] = {self._exp('was - next[l]')}; sum[l] *= shrink[l];"
        return [
            _each_lane(lanes, "next[l] = top[l];"),
            *block("for (int64_t r = 0; r < k1 - k0; ++r)", ["const int64_t j = k0 + r;", *valid]),
            VECTORIZE_LONG, _each_lane(lanes, move),
            *block("for (int64_t r = 0; r < k1 - k0; ++r)", [VECTORIZE_LONG, *loop("l", 0, lanes, power)]),
        ]  # fmt: skip

    def _exp(self, text: str) -> str:
        return f"exp({text})" if self.acc == float64 else f"rl_exp({text})"

    def _finish(self, kind: _Block) -> list[str]:
        out = self.problem.out
        at = _base(out, ["b", "h", "(q0 + l)"], 3)
        value = cexpr.cast_text(f"held[l * {self.panels.padded} + d] * share", self.acc, out.dtype)
        value = f"({value})" if out.dtype == self.acc else value
        store = cexpr.store(out, "out0", f"{at} + d * {out.strides[3]}", value)
        inner = [f"const {self.type} share = 1 / sum[l];", *vectorized("d", 0, self.width, [store])]
        return loop("l", 0, kind.valid, inner)

    # --- steps --------------------------------------------------------------------------------------------------------

    def part(self) -> Part:
        lines, place = [], 0
        for name, elements in self.regions:
            lines.append(f"{self.type} *restrict {name} = ({self.type} *)scratch + {place};")
            place += _rounded(elements)
        b, h, _, _ = self.problem.extents
        body = coordinates("step", [("b", b), ("h", h), ("part", self.queries.count)])
        body += [f"const int64_t g = h / {self.problem.group}, q0 = ({self.queries.begin('part')}) * {self.lanes};"]
        if self.schedule.stage:
            head = f"b * {self.problem.reads[1].shape[1]} + g"
            body += block(f"if (ready != {head})", [*self._stage(), f"ready = {head};"])
            lines.append("int64_t ready = -1;")
            sources = "keys, values"
        else:
            key, value = self.problem.reads[1:3]
            sources = f"arg1 + {_base(key, ['b', 'g'], 2)}, arg2 + {_base(value, ['b', 'g'], 2)}"
        places = ", ".join(name for name, _ in self.regions[:4])
        arguments = ", ".join([places, sources, *(f"arg{i}" for i in range(len(self.problem.reads))), "out0", "b", "h", "q0"])
        body += self._dispatch(arguments)
        return Part(self.num_steps, [*lines, *loop("step", "begin", "end", body)])

    def _dispatch(self, arguments: str) -> list[str]:
        """Calls the function of the block's kind."""
        kinds, lines = self.block_kinds, []
        if kinds[-1].valid < kinds[-1].lanes:
            lines = [f"if (part == {self.queries.count - 1}) {kinds[-1].name}({arguments}); else"]
            kinds = kinds[:-1]
        if len(kinds) == 2:
            lines.append(f"if (part < {self.queries.num_large}) {kinds[0].name}({arguments}); else")
        return [*lines, f"{kinds[-1].name}({arguments});"]

    def _stage(self) -> list[str]:
        key, value = self.problem.reads[1:3]
        copy_key = f"keys[j * {self.depth} + d] = {self._converted(key, f'k[j * {key.strides[2]} + d * {key.strides[3]}]')};"
        element = self._converted(value, f"v[j * {value.strides[2]} + d * {value.strides[3]}]")
        copy_value = f"values[j * {self.panels.padded} + d] = {element};"
        lines = [
            f"const {key.dtype.c} *k = arg1 + {_base(key, ['b', 'g'], 2)}, *v = arg2 + {_base(value, ['b', 'g'], 2)};",
            *loop("j", 0, self.num_keys, vectorized("d", 0, self.depth, [copy_key])),
            *loop("j", 0, self.num_keys, vectorized("d", 0, self.width, [copy_value])),
        ]
        if self.panels.padded > self.width:
            clear = f"values[j * {self.panels.padded} + d] = 0;"
            lines += loop("j", 0, self.num_keys, loop("d", self.width, self.panels.padded, [clear]))
        return lines


_LANES = ("top", "next", "sum", "shrink")


def _rounded(elements: int) -> int:
    """Room for ``elements`` such that what follows begins on a cache line."""
    return -(-elements // 16) * 16


def _int64(*names: str) -> list[str]:
    return [f"int64_t {name}" for name in names]


def _each_lane(lanes: int, statement: str) -> str:
    return f"for (int64_t l = 0; l < {lanes}; ++l) {{ {statement} }}"


def _base(operand: Operand, names: list[str], count: int) -> str:
    return offset(names, operand.strides[:count])


def _cover(tiles: Split, call: str) -> list[str]:
    """Calls a tile function for all rows: ``call`` is formatted with the tile's height; j is the first row."""
    large, small = tiles.sizes[0], tiles.sizes[-1]
    cut = tiles.num_large * large
    lines = [f"for (int64_t j = 0; j < {cut}; j += {large}) {call.format(large)}"]
    if large != small:
        lines.append(f"for (int64_t j = {cut}; j < {tiles.extent}; j += {small}) {call.format(small)}")
    return lines


def _without_repeats(lines: list[str]) -> "list[str]":
    """Functions (paragraphs) that several kinds of block ask for appear once."""
    paragraphs = "\n".join(lines).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs)).split("\n")
