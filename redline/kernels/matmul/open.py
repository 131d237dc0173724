"""Matrix products whose number of rows is open: the tiles of every height up to the tallest, dealt out at run time.

The rows m of a call are cut into t = ceil(m / tallest) tiles of nearly the same height, as a kernel made for that m would cut
them. Everything else (columns, depth, batch, packing) is constant, or an open factor of an address.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from redline.base.errors import BuildError
from redline.base.extents import ceil_div, high, is_open, minimum
from redline.kernels import tile
from redline.kernels.ctext import block, offset, share
from redline.kernels.matmul import c, schedule
from redline.kernels.matmul import gemm as gemms
from redline.kernels.matmul.c import MatmulKernel
from redline.kernels.matmul.problem import Problem
from redline.kernels.matmul.schedule import Schedule
from redline.kernels.parts import any_open, dims
from redline.kernels.problem import CpuTarget, KernelCode
from redline.kernels.tile import Ahead

AHEAD_TILES = 1  # tiles that together fetch the next panel: a product of few rows has no more
ROWS_PER_CHUNK = (96, 192)
WIDTHS = (2, 4, 3)  # vectors of a tile; those of two reach the tallest, so few rows read the weights once
PANEL_CHUNKS_PER_THREAD = 4


@dataclass(frozen=True)
class OpenSchedule:
    """Tiles of at most ``rows`` x ``vectors``; chunks of about ``chunk_rows`` rows, each cut into ``panel_chunks``."""

    rows: int
    vectors: int
    chunk_rows: int
    panel_chunks: int
    prefetch: bool
    dot: str = ""


def render(problem: Problem, chosen: Schedule | OpenSchedule, target: CpuTarget) -> KernelCode:
    """The kernel for ``problem``, whether its rows are open or not."""
    if isinstance(chosen, Schedule):
        return c.render(problem, chosen, target)
    closed = Schedule(chosen.rows, chosen.vectors, 1, chosen.panel_chunks, prefetch=chosen.prefetch, dot=chosen.dot)
    return c.code(_OpenKernel(problem, closed, target, chosen.chunk_rows))


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule | OpenSchedule]:
    """The candidates, the best guess first; raises BuildError where something else than rows and addresses is open."""
    if not any_open(problem.reads, problem.writes):
        return schedule.schedules(problem, target)
    g, best = gemms.of(problem), schedule.dots(problem, False, target)[0]
    if schedule.must_stage(g, best):
        seen = f"a product of {g.reads[g.x_arg].dtype.name} with open rows, which {target.name} multiplies as {best.x.name}"
        raise BuildError("matmul", seen, "float32; bfloat16 where the processor multiplies it", "build with --precision fp32")
    if any(map(is_open, (g.n, g.k, g.x[-1], g.out[-1], *g.w, *g.batch))) or problem.acc.size != 4 or not g.w_constant:
        seen = f"a product of {g.num_batches} x [{g.m}, {g.k}] x [{g.k}, {g.n}]"
        raise BuildError(
            "matmul", seen, "only the rows of a product with constant weights may be open", "fix more with --shapes"
        )
    lanes = tile.lanes(problem.acc, target)
    is_large = g.reads[g.w_arg].num_bytes > schedule.LARGE_BYTES
    widest = min(-(-g.n // lanes), 4)
    found = []
    for vectors in dict.fromkeys(min(widest, v) for v in WIDTHS):
        for chunk_rows in ROWS_PER_CHUNK:
            panels = -(-g.n // (vectors * lanes))
            cuts = min(panels, PANEL_CHUNKS_PER_THREAD * target.num_threads) if target.num_threads > 1 else 1
            for prefetch in (True,) if is_large else (True, False):
                found.append(OpenSchedule(tile.tallest(vectors, target), vectors, chunk_rows, cuts, prefetch, best.name))
    return found


@dataclass(frozen=True)
class _OpenKernel(MatmulKernel):
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
        step_bytes = width * self.dot.group * self.dot.w.size
        return Ahead(self.dot.steps(self.g.k), step_bytes, self.depth * width * self.dot.w.size, AHEAD_TILES)

    def text(self) -> str:
        lines = self.dot.types(self.vectors)
        for width, valid in self.panels.kinds():
            for rows in self.heights:
                lines += self.tile(rows, width, valid)
            lines += self.any_height(valid)
        return "\n".join([*lines, *self.main(), ""])

    def any_height(self, valid: int) -> list[str]:
        """The function that calls the tile of a height known at run time."""
        passed = f"args, x, panel{', ahead' if self.schedule.prefetch else ''}, z, m0, n0"
        cases = [f"case {rows}: tile_{rows}x{valid}({passed}); break;" for rows in self.heights]
        operands = (
            f"const {self.dot.x.c} *x, const {self.dot.w.c} *panel{', const char *ahead' if self.schedule.prefetch else ''}"
        )
        head = (
            f"static inline void tile_x{valid}(int64_t rows, void *const *args, {operands}, int64_t z, int64_t m0, int64_t n0)"
        )
        return block(head, block("switch (rows)", cases))

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
        ]
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", [*body, *self.walk_panels_outer()])

    def column_of_tiles(self, width: int, valid: int) -> list[str]:
        ahead = self.ahead(width)
        passed = f"args, a + m0 * {self.g.x[-2]}, panel{', ahead' if ahead else ''}, z, m0, p * {self.panels.width}"
        call = [
            "const int64_t m0 = t * (height - 1) + (t < num_large ? t : num_large);",
            f"tile_x{valid}(t < num_large ? height : height - 1, {passed});",
            *([ahead.advance] if ahead else []),
        ]
        return block("for (int64_t t = t0; t < t1; ++t)", call)
