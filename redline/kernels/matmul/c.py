"""Matrix products in C, on the vector unit; what those on the matrix unit (deferred.py) and those of open rows begin from.

One function a kind of tile (full and narrower rows and panels), and KERNEL, which walks the tiles of a chunk. ``w`` is
packed in panels at build when it is constant, read in place when it is contiguous in n, and else packed panel by panel
into scratch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from redline.base.extents import at_nominal
from redline.base.shapes import size
from redline.kernels import bounds, cexpr, narrow, start, tile
from redline.kernels.ctext import block, clipped, loop, offset, share, vectorized
from redline.kernels.dot import Dot
from redline.kernels.expr import Expr
from redline.kernels.matmul import gemm as gemms
from redline.kernels.matmul.gemm import Gemm
from redline.kernels.matmul.problem import Problem
from redline.kernels.matmul.schedule import Schedule, in_vectors_of, panels, rows_collide, way
from redline.kernels.parts import dims
from redline.kernels.prepare import prepare
from redline.kernels.problem import CpuTarget, KernelCode, Packing
from redline.kernels.start import Start
from redline.kernels.tile import CACHE_LINE, Ahead, Loop, NextRows, Panels, Split

FEW_PANELS = 2
NEAR_SHARE = 0.5  # of the second-level cache: no more than this lies there when it is read


def code(kernel: "MatmulKernel") -> KernelCode:
    packings = {kernel.g.w_arg: kernel.packing()} if kernel.g.w_constant else {}
    text = kernel.text()
    return KernelCode("matmul", cexpr.prelude(text) + text, kernel.num_chunks, kernel.scratch_bytes, packings)


@dataclass(frozen=True)
class MatmulKernel:
    AHEAD: ClassVar[type[Ahead]] = Ahead

    problem: Problem
    schedule: Schedule
    target: CpuTarget

    @cached_property
    def g(self) -> Gemm:
        return gemms.of(self.problem, self.schedule.swapped)

    @property
    def vectors(self) -> CpuTarget:
        return in_vectors_of(self.schedule, self.target)

    @cached_property
    def panels(self) -> Panels:
        return panels(self.g, self.schedule, self.problem, self.target)

    @cached_property
    def rows(self) -> Split:
        return Split.of_at_most(self.g.m, self.schedule.rows)

    @cached_property
    def dot(self) -> Dot:
        return way(self.problem, self.schedule)

    @property
    def num_chunks(self) -> int:
        return self.g.num_batches * self.schedule.row_chunks * self.schedule.panel_chunks

    @property
    def depth(self) -> int:
        """Elements of a packed panel for each of its columns."""
        return (self.dot.steps(self.g.k) * self.dot.parts + self.dot.head) * self.dot.group

    @property
    def padded_k(self) -> int:
        """Elements of a row of x as it is staged, of each part."""
        return self.dot.steps(self.g.k) * self.dot.group

    def packing(self) -> Packing:
        """The constant operand in panels: [distinct batch][panel][head and steps][width][group]."""
        g, cut, dot, padded = self.g, self.panels, self.dot, self.padded_k
        distinct = tuple(slice(None) if stride else slice(1) for stride in self.problem.reads[g.w_arg].strides[:-2])
        transposed = g.w_arg == 0

        def apply(array: np.ndarray) -> np.ndarray:
            array = np.swapaxes(array, -1, -2) if transposed else array
            array = array[distinct]
            rows = np.pad(array.reshape(size(array.shape[:-2]), g.k, g.n), ((0, 0), (0, padded - g.k), (0, 0)))
            return tile.pack_panels(rows, cut, dot)

        kind = f"{dot.name}{dot.w.name}{'t' if transposed else ''}"
        return Packing(f"panels{cut.width}x{cut.lanes}-{kind}", apply)

    @property
    def staged_stride(self) -> int:
        """Elements from one staged row to the next: an odd number of cache lines, so that rows spread over the cache."""
        per_line = CACHE_LINE // self.dot.x.size
        return (-(-self.padded_k * self.dot.parts // per_line) | 1) * per_line

    @property
    def spare_rows(self) -> int:
        """Rows in front of the staged ones, for tiles that begin early."""
        return 0

    @property
    def staged_bytes(self) -> int:
        most = -(-self.rows.count // self.schedule.row_chunks) * self.rows.size + self.spare_rows
        return most * self.staged_stride * self.dot.x.size if self.schedule.staged else 0

    def is_direct(self, width: int, valid: int) -> bool:
        """Whether panels of this kind are read where they lie."""
        plain = self.dot.group == 1 and self.problem.reads[self.g.w_arg].dtype == self.dot.w
        return self.g.w_constant or (self.g.w[-1] == 1 and width == valid and plain)

    @property
    def scratch_bytes(self) -> int:
        packed = max((width for width, valid in self.panels.kinds() if not self.is_direct(width, valid)), default=0)
        return self.staged_bytes + self.depth * packed * self.dot.w.size

    def text(self) -> str:
        lines = self.dot.types(self.vectors)
        for width, valid in self.panels.kinds():
            lines += self.functions(width, valid)
        return "\n".join([*lines, *self.main(), ""])

    def functions(self, width: int, valid: int) -> list[str]:
        """C: what the tiles of one kind of panel are computed by."""
        return [line for rows in self.rows.sizes for line in self.tile(rows, width, valid)]

    def ahead(self, width: int) -> Ahead | None:
        """How the next panel is fetched, where the schedule wants that."""
        if not self.schedule.prefetch:
            return None
        tiles = self.rows.count // self.schedule.row_chunks
        return Ahead.of(self.dot, width, self.dot.steps(self.g.k), self.groups_at_once, self.depth, tiles)

    @property
    def groups_at_once(self) -> int:
        """Groups that one instruction takes along k."""
        return 1

    def sums(self, rows: int, width: int, valid: int) -> list[str]:
        """C: ``sums[rows][width]``, a tile of the product."""
        g, dot = self.g, self.dot
        stride, step = (self.staged_stride, 1) if self.schedule.staged else g.x[-2:]
        w_step = width * dot.group if g.w_constant or not self.is_direct(width, valid) else g.w[-2]
        vectors = width // self.panels.lanes
        offsets, steps = [i * stride for i in range(rows)], Loop(dot.steps(g.k), step * dot.group, w_step)
        following = NextRows(rows, g.x[-2], dot.group, dot.x.size) if self.is_far else None
        bits = 8 * self.vectors.vector_bytes
        begin = self.start(width, valid).at("n0")
        lines = tile.inner_product(offsets, vectors, [steps], dot, self.ahead(width), bits, following, begin)
        return lines + tile.spill(rows, vectors, width, dot.acc)

    def start(self, width: int, valid: int) -> Start:
        """What the sums of such a panel begin with."""
        return start.of_products(self.problem, self.dot, width == valid and not self.schedule.swapped)

    @property
    def is_far(self) -> bool:
        """Whether the rows of x that a tile reads come from beyond the second-level cache, and few panels read them again.

        Rows that fall on the same sets of the first-level cache would push each other out before they are read.
        """
        g, s, size = self.g, self.schedule, self.dot.x.size
        panels = 1 if s.rows_outer else -(-self.panels.count // s.panel_chunks)
        fits = at_nominal(g.m) * g.k * size <= NEAR_SHARE * self.target.l2_bytes
        near = fits or s.staged or panels > FEW_PANELS
        return not (near or rows_collide(g, size) or g.x[-1] != 1 or self.dot.steps(g.k) == 1)

    def tile(self, rows: int, width: int, valid: int) -> list[str]:
        """The function that computes a tile and stores it through the epilogue."""
        g = self.g
        body = [*dims(self.problem.reads, self.problem.writes), *self.sums(rows, width, valid)]
        reads = self.problem.reads
        names = [f"arg{i}" for i in range(len(reads))]
        body += cexpr.pointers(reads[2:], names[2:], first=2)
        body += cexpr.pointers(self.problem.writes, ["out"], first=len(reads), const=False)
        body += narrow.rows(
            rows, valid, self.panels.lanes, self.start(width, valid).epilogue, self.problem.out, self.target,
            ["const int64_t m = m0 + i;"], "const int64_t n = n0 + j;",
            offset([*gemms.batch_texts(g.batch), "m", "n"], g.out), g.out[-1], self.render,
        )  # fmt: skip
        return block(f"static __attribute__((noinline)) void {tile_name(rows, valid)}({self.operands})", body)

    @property
    def operands(self) -> str:
        """The parameters of the function of a tile."""
        x = f"void *const *args, const {self.dot.x.c} *x, const {self.dot.w.c} *panel"
        ahead = f", {self.AHEAD.DECLARED}" if self.schedule.prefetch else ""
        return f"{x}{ahead}, int64_t z, int64_t m0, int64_t n0"

    def render(self, expr: Expr) -> tuple[list[str], str]:
        """C: statements and value of an epilogue of ``sums[i][j]``."""
        reads, extents = self.problem.reads, self.problem.out.shape
        prepared = prepare(expr, reads, bounds.box_of(extents))
        coordinates = self.g.coordinates_of(prepared)
        return cexpr.Renderer(reads, coordinates, ["sums[i][j]"], extents=extents).emit(prepared)

    def main(self) -> list[str]:
        g, s = self.g, self.schedule
        x_type, w_type = (self.problem.reads[arg].dtype.c for arg in (g.x_arg, g.w_arg))
        per_batch, batch = self.panels.padded * self.depth, gemms.batch_texts(g.batch)
        w_type = self.dot.w.c if g.w_constant else w_type
        w_batch = self._packed_batch(per_batch) if g.w_constant else offset(batch, g.w[:-2])
        body = [
            f"const int64_t z = chunk / {s.row_chunks * s.panel_chunks};",
            f"const int64_t rows = chunk / {s.panel_chunks} % {s.row_chunks}, columns = chunk % {s.panel_chunks};",
            *share("t", "rows", self.rows.count, s.row_chunks),
            *share("p", "columns", self.panels.count, s.panel_chunks),
            f"const {x_type} *a = (const {x_type} *)args[{g.x_arg}] + {offset(batch, g.x[:-2])};",
            f"const {w_type} *b = (const {w_type} *)args[{g.w_arg}] + {w_batch};",
        ]
        body += self.stage() if s.staged else []
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", [*body, *self.walk()])

    def _packed_batch(self, per_batch: int) -> str:
        """C: where the panels of batch z begin; batches that w does not tell apart share them."""
        strides, step = [], per_batch
        for extent, stride in zip(reversed(self.g.batch), reversed(self.g.w[:-2]), strict=True):
            strides.append(step if stride else 0)
            step *= extent if stride else 1
        return offset(gemms.batch_texts(self.g.batch), strides[::-1])

    def stage(self) -> list[str]:
        """Copies the chunk's rows, converted, whole groups long and with the distance ``staged_stride``."""
        g, dot = self.g, self.dot
        element = f"a[m * {g.x[-2]} + k * {g.x[-1]}]"
        source, row = self.problem.reads[g.x_arg].dtype, f"(m - m_begin) * {self.staged_stride}"
        places = [f"staged[{row} + {part * self.padded_k} + k]" for part in range(dot.parts)]
        copy = tile.staged(places, element, source, dot.x, dot.offset)
        fill = [f"{place} = {dot.offset};" for place in places]
        walk = vectorized("k", 0, g.k, copy) if dot.parts > 1 else loop("k", 0, g.k, copy)
        walk += loop("k", g.k, self.padded_k, fill) if self.padded_k > g.k else []
        return [
            f"{dot.x.c} *restrict staged = ({dot.x.c} *)scratch + {self.spare_rows * self.staged_stride};",
            f"const int64_t m_begin = {self.rows.begin('t0')}, m_end = {self.rows.begin('t1')};",
            *loop("m", "m_begin", "m_end", walk),
        ]

    def walk(self) -> list[str]:
        """C: the tiles of a chunk."""
        return self.walk_rows_outer() if self.schedule.rows_outer else self.walk_panels_outer()

    def walk_panels_outer(self) -> list[str]:
        lines = []
        for first, end, width, valid in self.panels.ranges():
            ahead = self.ahead(width)
            tiles = self.pack(width, valid) + (ahead.begin if ahead else []) + self.column_of_tiles(width, valid)
            lines += clipped("p", first, end, "p0", "p1", tiles) + self.flush(valid)
        return lines

    def walk_rows_outer(self) -> list[str]:
        lines, before, ranges = [], 0, list(self.panels.ranges())
        for rows, count in self.row_kinds():
            inner = []
            for first, end, width, valid in ranges:
                inner += clipped("p", first, end, "p0", "p1", [self.panel(width), *self.call(rows, valid)])
                inner += self.flush(valid) if len(ranges) > 1 else []
            lines += clipped("t", before, before + count, "t0", "t1", inner)
            before += count
        return lines if len(ranges) > 1 else lines + self.flush(valid)

    def row_kinds(self) -> Sequence[tuple[int, int]]:
        """(rows, tiles of so many) of a column of tiles."""
        return list(zip(self.rows.sizes, (self.rows.num_large, self.rows.count - self.rows.num_large), strict=False))

    def panel(self, width: int) -> str:
        if self.g.w_constant:
            return f"const {self.dot.w.c} *panel = b + p * {self.panels.width * self.depth};"
        return f"const {self.dot.w.c} *panel = b + p * {self.panels.width * self.g.w[-1]};"

    def pack(self, width: int, valid: int) -> list[str]:
        """C: ``panel``; packed into scratch where it cannot be read in place."""
        if self.is_direct(width, valid):
            return [self.panel(width)]
        g, dot = self.g, self.dot
        element = f"b[k * {g.w[-2]} + (p * {self.panels.width} + j) * {g.w[-1]}]"
        place = f"(k / {dot.group} * {width} + j) * {dot.group} + k % {dot.group}" if dot.group > 1 else f"k * {width} + j"
        places = [f"packed[{part * self.padded_k * width} + {place}]" for part in range(dot.parts)]
        copy = tile.staged(places, element, self.problem.reads[g.w_arg].dtype, dot.w)
        fill = [f"{place} = 0;" for place in places]
        lines = loop("k", 0, g.k, loop("j", 0, valid, copy))
        if valid < width:
            lines += loop("k", 0, g.k, loop("j", valid, width, fill))
        if self.padded_k > g.k:
            lines += loop("k", g.k, self.padded_k, loop("j", 0, width, fill))
        return [
            f"{dot.w.c} *restrict packed = ({dot.w.c} *)((char *)scratch + {self.staged_bytes});",
            *lines,
            f"const {dot.w.c} *panel = packed;",
        ]

    def column_of_tiles(self, width: int, valid: int) -> list[str]:
        lines, before = [], 0
        for rows, count in self.row_kinds():
            ahead = self.ahead(width)
            calls = [*self.call(rows, valid), *([ahead.advance] if ahead else [])]
            lines += clipped("t", before, before + count, "t0", "t1", calls)
            before += count
        return lines

    def flush(self, valid: int) -> list[str]:
        """C: what is left to do of the tiles of one kind of panel."""
        return []

    def call(self, rows: int, valid: int) -> list[str]:
        """C: tile ``t`` of panel ``p``."""
        m0 = self.rows.begin("t")
        x = f"staged + ({m0} - m_begin) * {self.staged_stride}" if self.schedule.staged else f"a + ({m0}) * {self.g.x[-2]}"
        ahead = ", ahead" if self.schedule.prefetch else ""
        return [f"{tile_name(rows, valid)}(args, {x}, panel{ahead}, z, {m0}, p * {self.panels.width});"]


def tile_name(rows: int, valid: int) -> str:
    return f"tile_{rows}x{valid}"
