"""The register tile: the inner product that matmul and convolution share, as C text.

    acc[i][v] += x[offset[i]] * w[v]        for i < rows, v < vectors, at every step of a loop nest

``x`` are scalars, so their operand may lie in any order; ``w`` are rows of a panel: ``vectors`` vectors side by side.
Everything is unrolled and stays in registers. The sums then go through a small array into a scalar loop that holds the
epilogue; the compiler vectorises that loop and removes the array again (seen in the machine code of clang 20 and newer).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from redline.base.dtypes import DType, bfloat16, bool_, float16, float32, int32
from redline.kernels.ctext import block
from redline.kernels.problem import CpuTarget

MAX_ROWS = 14  # taller tiles gain nothing
LATENCY = 4  # cycles of a multiply-add: fewer sums than this leave the unit idle


def accumulator(dtype: DType) -> DType:
    """The type in which products of ``dtype`` are summed: float32 for the 16-bit floats, int32 for small integers."""
    if dtype in (float16, bfloat16):
        return float32
    return int32 if dtype == bool_ or (dtype.is_integer and dtype.size < 4) else dtype


def lanes(dtype: DType, target: CpuTarget) -> int:
    """Elements of ``dtype`` in one vector."""
    return target.vector_bytes // dtype.size


def fits(rows: int, vectors: int, target: CpuTarget) -> bool:
    """Whether the sums, one row of ``w`` and one scalar have registers."""
    return rows * vectors + vectors + 1 <= target.num_registers


def tallest(vectors: int, target: CpuTarget) -> int:
    """The most rows with which a tile of ``vectors`` fits, as far as more rows help; 0 when none does."""
    return min(MAX_ROWS, (target.num_registers - vectors - 1) // vectors)


def cost(rows: int, vectors: int, depth: int, dtype: DType, target: CpuTarget) -> float:
    """Cycles of one tile whose inner sum has ``depth`` terms: multiply-adds or their latency, reading w, begin and end."""
    panel_bytes = depth * vectors * target.vector_bytes
    far = 0.05 if panel_bytes <= target.l1_bytes * 3 // 4 else 0.25 if panel_bytes <= target.l2_bytes * 3 // 4 else 1.0
    step = max(rows * vectors, (1 + 4 * min(far, 0.25)) * vectors, LATENCY) + far * vectors
    return step * depth + 12 + 3 * rows * vectors


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


@dataclass(frozen=True)
class Loop:
    """One loop of the inner product: how far ``x`` and ``w`` move a step, in elements."""

    extent: int
    x_step: int
    w_step: int


def vector_type(dtype: DType, target: CpuTarget) -> str:
    """C: ``vec``, a vector that may lie at any address of an element."""
    return f"typedef {dtype.c} vec __attribute__((vector_size({target.vector_bytes}), aligned({dtype.size})));"


def inner_product(offsets: Sequence[int], vectors: int, loops: Sequence[Loop], dtype: DType, prefetch: int = 0) -> list[str]:
    """C: ``vec acc[rows][vectors]`` from the pointers ``x`` and ``panel``; row i of ``x`` is ``offsets[i]`` elements on.

    ``prefetch``: bytes ahead of ``w`` that are asked for, for panels that come from memory rather than from a cache.
    """
    inner = [loop for loop in loops if loop.extent != 1]
    x, w = ("".join(f" + k{i} * {step}" for i, step in enumerate(s)) for s in (_steps(inner, 0), _steps(inner, 1)))
    body = [f"const {dtype.c} *xk = x{x};", f"const vec *wk = (const vec *)(panel{w});"]
    if prefetch:
        body += [f"__builtin_prefetch((const char *)(wk + {v}) + {prefetch});" for v in range(vectors)]
    body.append("const vec " + ", ".join(f"w{v} = wk[{v}]" for v in range(vectors)) + ";")
    for i, offset in enumerate(offsets):
        sums = " ".join(f"acc[{i}][{v}] += s{i} * w{v};" for v in range(vectors))
        body.append(f"const {dtype.c} s{i} = xk[{offset}]; {sums}")
    heads = [f"for (int64_t k{i} = 0; k{i} < {loop.extent}; ++k{i})" for i, loop in enumerate(inner)]
    return [f"vec acc[{len(offsets)}][{vectors}] = {{0}};", *block(" ".join(heads), body)]


def _steps(loops: Sequence[Loop], which: int) -> list[int]:
    return [loop.w_step if which else loop.x_step for loop in loops]


def spill(rows: int, vectors: int, width: int, dtype: DType) -> list[str]:
    """C: ``sums[rows][width]``, the accumulators as the epilogue's scalar loop reads them."""
    lanes = width // vectors
    lines = [f"{dtype.c} sums[{rows}][{width}] __attribute__((aligned(64)));"]
    store = f"for (int64_t v = 0; v < {vectors}; ++v) *(vec *)&sums[i][v * {lanes}] = acc[i][v];"
    return [*lines, f"for (int64_t i = 0; i < {rows}; ++i) {store}"]


def pack_panels(array: np.ndarray, cut: Panels) -> np.ndarray:
    """[batch, k, n] as a flat array [batch][panel][k][width]."""
    batch, k, _ = array.shape
    split = cut.num_full * cut.width
    full = array[:, :, :split].reshape(batch, k, cut.num_full, cut.width).transpose(0, 2, 1, 3).reshape(batch, -1)
    last = np.pad(array[:, :, split:], ((0, 0), (0, 0), (0, cut.last_width - cut.rest))).reshape(batch, -1)
    return np.concatenate([full, last], axis=1).reshape(-1)
