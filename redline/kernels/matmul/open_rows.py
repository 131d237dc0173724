"""Matrix products whose number of rows is open: the tiles of every height up to the tallest, dealt out at run time.

The rows m of a call are cut into t = ceil(m / tallest) tiles of nearly the same height, as a kernel made for that m would cut
them. Everything else (columns, depth, batch, packing) is constant, or an open factor of an address.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from redline.base.extents import ceil_div, high, minimum
from redline.kernels.ctext import block, offset, share
from redline.kernels.matmul import gemm as gemms
from redline.kernels.matmul.c import MatmulKernel
from redline.kernels.parts import dims
from redline.kernels.tile import Ahead, PacedAhead


@dataclass(frozen=True)
class OpenSchedule:
    """Tiles of at most ``rows`` x ``vectors``; chunks of about ``chunk_rows`` rows, each cut into ``panel_chunks``."""

    rows: int
    vectors: int
    chunk_rows: int
    panel_chunks: int
    prefetch: bool
    dot: str = ""


@dataclass(frozen=True)
class OpenKernel(MatmulKernel):
    AHEAD: ClassVar[type[Ahead]] = PacedAhead

    chunk_rows: int = 96

    @cached_property
    def heights(self) -> range:
        return range(1, min(self.schedule.rows, high(self.g.m)) + 1)

    @cached_property
    def num_tiles(self) -> int:
        return ceil_div(self.g.m, self.schedule.rows)

    @cached_property
    def row_chunks(self) -> int:
        return minimum(ceil_div(self.g.m, self.chunk_rows), self.num_tiles)

    @property
    def num_chunks(self) -> int:
        return self.g.num_batches * self.row_chunks * self.schedule.panel_chunks

    @property
    def scratch_bytes(self) -> int:
        return 0

    def ahead(self, width: int) -> Ahead | None:
        if not self.schedule.prefetch:
            return None
        return self.AHEAD.of(self.dot, width, self.dot.steps(self.g.k), self.groups_at_once, self.depth, 1)

    def text(self) -> str:
        lines = self.dot.types(self.vectors)
        for width, valid in self.panels.kinds():
            for rows in self.heights:
                lines += self.tile(rows, width, valid)
            lines += self.any_height(valid)
        return "\n".join([*lines, *self.main(), ""])

    def any_height(self, valid: int) -> list[str]:
        """The function that calls the tile of a height known at run time."""
        passed = f"args, x, panel{f', {self.AHEAD.PASSED}' if self.schedule.prefetch else ''}, z, m0, n0"
        cases = [f"case {rows}: tile_{rows}x{valid}({passed}); break;" for rows in self.heights]
        return block(f"static inline void tile_x{valid}(int64_t rows, {self.operands})", block("switch (rows)", cases))

    def main(self) -> list[str]:
        g, s, batch = self.g, self.schedule, gemms.batch_texts(self.g.batch)
        x_type = self.problem.reads[g.x_arg].dtype.c
        w_batch = self._packed_batch(self.panels.padded * self.depth)
        body = [
            *dims(self.problem.reads, self.problem.writes),
            f"const int64_t m = {g.m}, tiles = {self.num_tiles}, row_chunks = {self.row_chunks};",
            "const int64_t height = (m + tiles - 1) / tiles, num_large = m - tiles * (height - 1);",
            f"const int64_t z = chunk / {s.panel_chunks} / row_chunks, columns = chunk % {s.panel_chunks};",
            f"const int64_t rows = chunk / {s.panel_chunks} % row_chunks;",
            "const int64_t t0 = rows * tiles / row_chunks, t1 = (rows + 1) * tiles / row_chunks;",
            *share("p", "columns", self.panels.count, s.panel_chunks),
            f"const {x_type} *a = (const {x_type} *)args[{g.x_arg}] + {offset(batch, g.x[:-2])};",
            f"const {self.dot.w.c} *b = (const {self.dot.w.c} *)args[{g.w_arg}] + {w_batch};",
            "(void)scratch, (void)z;",
            *self.prologue(),
        ]
        walk = [*self.walk_panels_outer(), *self.epilogue()]
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", [*body, *walk])

    def prologue(self) -> list[str]:
        """C: what a chunk begins with."""
        return []

    def epilogue(self) -> list[str]:
        """C: what it ends with."""
        return []

    def column_of_tiles(self, width: int, valid: int) -> list[str]:
        ahead = self.ahead(width)
        passed = f"args, a + m0 * {self.g.x[-2]}, panel{f', {ahead.PASSED}' if ahead else ''}, z, m0, p * {self.panels.width}"
        call = [
            "const int64_t m0 = t * (height - 1) + (t < num_large ? t : num_large);",
            f"tile_x{valid}(t < num_large ? height : height - 1, {passed});",
            *([ahead.advance] if ahead else []),
        ]
        return block("for (int64_t t = t0; t < t1; ++t)", call)
