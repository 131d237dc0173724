"""The register tile: the inner product that matmul and convolution share, as C text.

    acc[i][v] += x[offset[i]] * w[v]        for i < rows, v < vectors, at every step of a loop nest

``x`` are scalars, so their operand may lie in any order; ``w`` are rows of a panel: ``vectors`` vectors side by side.
Everything is unrolled and stays in registers. The sums then go through a small array into a scalar loop that holds the
epilogue; the compiler vectorises that loop and removes the array again (seen in the machine code of clang 20 and newer).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from redline.base.dtypes import DType
from redline.kernels import cexpr
from redline.kernels.ctext import block
from redline.kernels.dot import Dot
from redline.kernels.dot import accumulator as accumulator
from redline.kernels.problem import CpuTarget

MAX_ROWS = 14  # taller tiles gain nothing
CACHE_LINE = 64
LATENCY = 4  # cycles of a multiply-add: fewer sums than this leave a unit idle


def lanes(dtype: DType, target: CpuTarget) -> int:
    """Elements of ``dtype`` in one vector."""
    return target.vector_bytes // dtype.size


def fits(rows: int, vectors: int, target: CpuTarget) -> bool:
    """Whether the sums, one row of ``w`` and one scalar have registers."""
    return rows * vectors + vectors + 1 <= target.num_registers


def tallest(vectors: int, target: CpuTarget) -> int:
    """The most rows with which a tile of ``vectors`` fits, as far as more rows help; 0 when none does."""
    return min(MAX_ROWS, (target.num_registers - vectors - 1) // vectors)


def cost(rows: int, vectors: int, steps: int, dot: Dot, target: CpuTarget) -> float:
    """Cycles of one tile of ``steps`` groups: multiply-adds or their latency, reading x and w, begin and end."""
    panel_bytes = steps * vectors * target.vector_bytes
    far = 0.05 if panel_bytes <= target.l1_bytes * 3 // 4 else 0.25 if panel_bytes <= target.l2_bytes * 3 // 4 else 1.0
    wide = target.vector_bytes == 64  # such a processor spreads scalars within the instruction, and starts one a cycle, not two
    loads = rows * dot.broadcast + (0 if wide else vectors)
    step = max(rows * vectors, loads, (1 + 4 * min(far, 0.25)) * vectors, LATENCY if wide else 2 * LATENCY) + far * vectors
    return step * steps + 12 + 3 * rows * vectors


@dataclass(frozen=True)
class Split:
    """``extent`` cut into ``count`` parts of nearly the same size: the first ``num_large`` have ``size``, others one less."""

    extent: int
    count: int

    @staticmethod
    def of_at_most(extent: int, most: int) -> "Split":
        return Split(extent, -(-extent // most))

    @property
    def size(self) -> int:
        return -(-self.extent // self.count)

    @property
    def num_large(self) -> int:
        return self.extent - self.count * (self.size - 1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The distinct sizes, large first."""
        return (self.size,) if self.num_large == self.count else (self.size, self.size - 1)

    def of(self, part: int) -> int:
        """The size of part number ``part``."""
        return self.size if part < self.num_large else self.size - 1

    def kinds(self) -> Iterator[tuple[int, int]]:
        """(size, number of parts of this size) of the distinct sizes, large first."""
        yield self.size, self.num_large
        if self.num_large < self.count:
            yield self.size - 1, self.count - self.num_large

    def begin(self, part: str) -> str:
        """C: where part number ``part`` begins."""
        if self.num_large == self.count:
            return f"{part} * {self.size}"
        return f"{part} * {self.size - 1} + ({part} < {self.num_large} ? {part} : {self.num_large})"


@dataclass(frozen=True)
class Panels:
    """``columns`` cut into full panels of ``width`` and a last one that is narrower, but whole vectors wide."""

    columns: int
    width: int
    lanes: int

    @property
    def num_full(self) -> int:
        return self.columns // self.width

    @property
    def rest(self) -> int:
        """Columns of the last panel that count; 0 when all panels are full."""
        return self.columns % self.width

    @property
    def last_width(self) -> int:
        return -(-self.rest // self.lanes) * self.lanes

    @property
    def widest(self) -> int:
        return self.width if self.num_full else self.last_width

    @property
    def count(self) -> int:
        return self.num_full + (self.rest > 0)

    @property
    def padded(self) -> int:
        """Columns with those that the last panel adds."""
        return self.num_full * self.width + self.last_width

    def kinds(self) -> Iterator[tuple[int, int]]:
        """(width, columns that count) of the distinct panels."""
        if self.num_full:
            yield self.width, self.width
        if self.rest:
            yield self.last_width, self.rest

    def ranges(self) -> Iterator[tuple[int, int, int, int]]:
        """(first, end, width, columns that count) of the panels of each kind."""
        if self.num_full:
            yield 0, self.num_full, self.width, self.width
        if self.rest:
            yield self.num_full, self.count, self.last_width, self.rest


@dataclass(frozen=True)
class Loop:
    """One loop of the inner product: how far ``x`` and ``w`` move a step, in elements.

    ``table``: for the matrix unit, a C array of where each step of x begins, instead of ``x_step``.
    """

    extent: int | str  # a C expression where it is known at run time only
    x_step: int
    w_step: int
    table: str = ""


@dataclass(frozen=True)
class Ahead:
    """The next panel is asked for while this one is used: each of ``tiles`` that share a panel asks for a part of it.

    A panel that comes from memory would otherwise hold up its first tile. ``steps`` of the inner product read
    ``step_bytes`` each; ``panel_bytes`` is the distance of the next panel. Reaching past the last panel is harmless: the
    next kernel's weights lie there. ``even``: where that is enough only some steps ask, so that all tiles do: what has been
    asked of memory holds a place in the queue in which the loads of this panel wait, too.
    """

    DECLARED: ClassVar[str] = "const char *ahead"  # as the function of a tile has it
    PASSED: ClassVar[str] = "ahead"

    steps: int
    step_bytes: int
    panel_bytes: int
    tiles: int
    even: bool = False

    @classmethod
    def of(cls, dot: Dot, width: int, groups: int, at_once: int, depth: int, tiles: int) -> Self:
        """For sums of ``groups``, ``at_once`` by an instruction, over panels of ``width`` columns of ``depth`` elements."""
        step_bytes = width * at_once * dot.group * dot.w.size * dot.parts
        even = not dot.tiled and step_bytes > CACHE_LINE  # steps of a single vector are too short to count them
        return cls(groups // at_once, step_bytes, depth * width * dot.w.size, tiles, even)

    @property
    def lines(self) -> int:
        """Cache lines that one step asks for."""
        return -(-self.step_bytes // (CACHE_LINE * self.tiles))

    @property
    def every(self) -> int:
        """Steps from one that asks to the next, a power of two."""
        return 1 << max(0, (CACHE_LINE * self.tiles // self.step_bytes).bit_length() - 1) if self.even else 1

    @property
    def begin(self) -> list[str]:
        """C: ``ahead``, what the first tile of ``panel`` asks for."""
        return [
            f"const char *ahead = (const char *)panel + {self.panel_bytes};",
            f"const char *const ahead_end = ahead + {self.panel_bytes};",
        ]

    @property
    def part(self) -> str:
        """C: the bytes that a tile asks for."""
        return str(-(-self.steps // self.every) * self.lines * CACHE_LINE)

    @property
    def advance(self) -> str:
        """C: to what the next tile asks for: when the whole panel is on its way, lines that are near already."""
        return f"ahead = ahead_end - ahead > {self.part} ? ahead + {self.part} : (const char *)panel;"

    @property
    def ask(self) -> list[str]:
        """C: one step's share, into the second-level cache."""
        asked = [f"__builtin_prefetch(ahead + {i * CACHE_LINE}, 0, 2);" for i in range(self.lines)]
        return [*asked, f"ahead += {self.lines * CACHE_LINE};"]

    def ask_at(self, step: str) -> list[str]:
        """C: the same at the steps that ask, counted by the variable ``step``."""
        return self.ask if self.every == 1 else block(f"if ({step} % {self.every} == 0)", self.ask)


@dataclass(frozen=True)
class PacedAhead(Ahead):
    """The same where t1 - t0, the tiles that share a panel, is known at run time only; ``tiles`` is the least there may be.

    ``pace`` is how many lines a step asks for: all at once would be more than the processor can wait for. The steps ask whose
    number has none of the bits of ``mask``.
    """

    DECLARED: ClassVar[str] = "const char *ahead, int64_t pace, int64_t mask"
    PASSED: ClassVar[str] = "ahead, pace, mask"

    @property
    def begin(self) -> list[str]:
        pace = f"const int64_t pace = t1 - t0 < {self.lines} ? ({self.lines} + t1 - t0 - 1) / (t1 - t0) : 1;"
        fewer = f"while ((mask + 1) * {2 * self.step_bytes} <= (t1 - t0) * {CACHE_LINE}) mask = mask * 2 + 1;"
        return [*super().begin, pace, "int64_t mask = 0;", *([fewer] if self.even else [])]

    @property
    def part(self) -> str:
        return f"pace * (({self.steps} + mask) / (mask + 1) * {CACHE_LINE})"

    @property
    def ask(self) -> list[str]:
        more = [f"if (pace > {i}) __builtin_prefetch(ahead + {i * CACHE_LINE}, 0, 2);" for i in range(1, self.lines)]
        return ["__builtin_prefetch(ahead, 0, 2);", *more, f"ahead += pace * {CACHE_LINE};"]

    def ask_at(self, step: str) -> list[str]:
        return block(f"if (({step} & mask) == 0)", self.ask) if self.even else self.ask


@dataclass(frozen=True)
class NextRows:
    """The rows of the next tile are asked for while those of this one are multiplied.

    A tile reads its rows side by side, a line of each in turn. Where they come from beyond the second-level cache, the
    processor's own reading ahead has just begun with a row when it ends. ``rows`` lie ``stride`` elements apart, and a step
    of the inner product, counted by k0, reads ``step`` elements of ``element_bytes`` of each. Where a line
    holds fewer steps than a tile has rows, as of doubles, not every row is asked for.
    """

    rows: int
    stride: int
    step: int
    element_bytes: int

    @property
    def line_steps(self) -> int:
        """Steps that read one cache line of a row."""
        return CACHE_LINE // (self.step * self.element_bytes)

    @property
    def ask(self) -> list[str]:
        """C: one step's share, into the first-level cache: steps within a line of x ask for that line of other rows."""
        at = f"x + ({self.rows * self.stride}) + k0 / {self.line_steps} * {self.line_steps * self.step}"
        row = f"k0 % {self.line_steps} * {self.rows} / {self.line_steps}"
        return [f"__builtin_prefetch({at} + {row} * ({self.stride}), 0, 3);"]


def inner_product(
    offsets: Sequence[int], vectors: int, loops: Sequence[Loop], dot: Dot, ahead: Ahead | None = None, bits: int = 512,
    following: NextRows | None = None, start: str = "",
) -> list[str]:  # fmt: skip
    """C: ``vec acc[rows][vectors]`` from the pointers ``x`` and ``panel``; row i of ``x`` is ``offsets[i]`` elements on.

    ``ahead``: what every step asks for, from the pointer ``ahead`` on; ``following``: what it asks for of x. ``bits``: of a
    vector, for the instructions that have them in their names. ``start``: a C pointer to what the sums of a row begin with.
    """
    inner = [loop for loop in loops if loop.extent != 1]
    x, w = ("".join(f" + k{i} * {step}" for i, step in enumerate(s)) for s in (_steps(inner, 0), _steps(inner, 1)))
    body = [f"const {dot.x.c} *xk = x{x};", f"const wvec *wk = (const wvec *)(panel{w});"]
    body += ahead.ask_at(f"k{len(inner) - 1}" if inner else "0") if ahead else []
    body += following.ask if following else []
    body.append("const wvec " + ", ".join(f"w{v} = wk[{v}]" for v in range(vectors)) + ";")
    for i, offset in enumerate(offsets):
        if vectors == 1:
            body.append(dot.multiply_at(f"acc[{i}][0]", f"xk + {offset}", "w0", bits))
            continue
        sums = " ".join(dot.multiply(f"acc[{i}][{v}]", f"s{i}", f"w{v}", bits) for v in range(vectors))
        body.append(f"{dot.scalar(f's{i}', f'xk + {offset}')} {sums}")
    heads = [f"for (int64_t k{i} = 0; k{i} < {loop.extent}; ++k{i})" for i, loop in enumerate(inner)]
    return [*_start(len(offsets), vectors, dot, start), *block(" ".join(heads), body)]


def _start(rows: int, vectors: int, dot: Dot, start: str) -> list[str]:
    """C: the sums at their beginning: zero, what lies at ``start``, or what heads the panel."""
    if start:
        load = f"for (int64_t v = 0; v < {vectors}; ++v) acc[i][v] = ((const vec *)({start}))[v];"
        return [f"vec acc[{rows}][{vectors}];", f"for (int64_t i = 0; i < {rows}; ++i) {load}"]
    if not dot.offset:
        return [f"vec acc[{rows}][{vectors}] = {{0}};"]
    load = f"for (int64_t v = 0; v < {vectors}; ++v) acc[i][v] = ((const vec *)panel)[v];"
    return [
        f"vec acc[{rows}][{vectors}];",
        f"for (int64_t i = 0; i < {rows}; ++i) {load}",
        f"panel += {vectors} * sizeof(vec) / sizeof *panel;",
    ]


def _steps(loops: Sequence[Loop], which: int) -> list[int]:
    return [loop.w_step if which else loop.x_step for loop in loops]


def spill(rows: int, vectors: int, width: int, dtype: DType) -> list[str]:
    """C: ``sums[rows][width]``, the accumulators as the epilogue's scalar loop reads them."""
    lanes = width // vectors
    lines = [f"{dtype.c} sums[{rows}][{width}] __attribute__((aligned(64)));"]
    store = f"for (int64_t v = 0; v < {vectors}; ++v) *(vec *)&sums[i][v * {lanes}] = acc[i][v];"
    return [*lines, f"for (int64_t i = 0; i < {rows}; ++i) {store}"]


def converted(element: str, source: DType, target: DType, offset: int = 0) -> str:
    """C: ``element`` of type ``source`` in memory as it is written where elements are ``target``; ``offset`` is added."""
    if offset:
        return f"({target.c})({element} + {offset})"
    if source == target:
        return element
    return cexpr.to_storage(target, cexpr.cast_text(cexpr.from_storage(source, element), source, target))


def staged(places: Sequence[str], element: str, source: DType, target: DType, offset: int = 0) -> list[str]:
    """C: ``element`` of type ``source`` copied to where its parts go (Dot.parts)."""
    if len(places) == 1:
        return [f"{places[0]} = {converted(element, source, target, offset)};"]
    lines = [f"const float part0 = {cexpr.from_storage(source, element)};"]
    lines += [f"const float part{i} = rl_rest_bf16(part{i - 1});" for i in range(1, len(places))]
    return lines + [f"{place} = rl_to_bf16(part{i});" for i, place in enumerate(places)]


def pack_panels(array: np.ndarray, cut: Panels, dot: Dot) -> np.ndarray:
    """[batch, k, n] as a flat array [batch][panel][head and steps][width][group] of the type that ``dot`` reads."""
    rows = dot.group_rows(array)
    batch, steps, _, group = rows.shape
    split = cut.num_full * cut.width
    full = rows[:, :, :split].reshape(batch, steps, cut.num_full, cut.width, group).swapaxes(1, 2).reshape(batch, -1)
    last = np.pad(rows[:, :, split:], ((0, 0), (0, 0), (0, cut.last_width - cut.rest), (0, 0))).reshape(batch, -1)
    return np.concatenate([full, last], axis=1).reshape(-1)
