"""Direct convolution of images whose extents are open.

A chunk is (image, band of rows, group, panels of filters). The width of a call is cut into tiles of nearly the same number of
columns, one row high: there is a function for every number up to the largest. A band has as many rows as its staged
input may have in the second-level cache, and there are enough bands for the threads.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from redline.base.extents import ceil_div, high, maximum, minimum, nominal
from redline.kernels import amx, dot
from redline.kernels.conv import direct, geometry
from redline.kernels.conv.candidates import MAX_SCRATCH_SHARE
from redline.kernels.conv.direct import DirectKernel
from redline.kernels.conv.geometry import Geometry, Term
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.schedule import Direct, Schedule, must_stage
from redline.kernels.conv.staging import CACHE_LINE, Stage
from redline.kernels.ctext import block, clipped, loop, offset, share
from redline.kernels.parts import dims
from redline.kernels.problem import CpuTarget, KernelCode
from redline.kernels.tile import Ahead

CHUNKS_PER_THREAD = 4
AHEAD_TILES = 16  # tiles that together fetch the next panel


@dataclass(frozen=True)
class OpenDirect(Schedule):
    """Tiles of at most ``columns`` outputs and ``vectors`` vectors of filters, whose panels are cut into ``panel_chunks``."""

    columns: int
    vectors: int
    panel_chunks: int = 1
    prefetch: bool = False
    dot: str = ""


def render(problem: Problem, chosen: OpenDirect, target: CpuTarget) -> KernelCode:
    how = dot.of(chosen.dot, problem.x.dtype, problem.w.dtype)
    staged = must_stage(geometry.of(problem), problem, how)
    closed = Direct(
        1, chosen.columns, chosen.vectors, 1, chosen.panel_chunks, staged=staged, prefetch=chosen.prefetch, dot=chosen.dot
    )
    return direct.code((OpenTiledKernel if how.tiled else OpenKernel)(problem, closed, target))


@dataclass(frozen=True)
class OpenKernel(DirectKernel):
    @cached_property
    def summed(self) -> Geometry:
        """Taps and channels stay axes of their own."""
        return self.g

    @property
    def widths(self) -> range:
        return range(1, min(self.schedule.width, high(self.g.out_size[2])) + 1)

    @cached_property
    def row_elements(self) -> Any:
        """Of the staged input that one more row of outputs needs."""
        _, height_step, _, _ = self.x_strides
        return height_step * self.g.step[1]

    @cached_property
    def most_rows(self) -> Any:
        """Rows of a band."""
        budget = int(self.target.l2_bytes * MAX_SCRATCH_SHARE) // self.dot.x.size
        wanted = -(-CHUNKS_PER_THREAD * self.target.num_threads // self.schedule.panel_chunks)
        return maximum(1, minimum(budget // self.row_elements, ceil_div(self.g.out_size[1], wanted)))

    @cached_property
    def bands(self) -> Any:
        return ceil_div(self.g.out_size[1], self.most_rows)

    @cached_property
    def stage(self) -> Stage | None:
        return Stage.of(self.g, 1, self.problem, self.dot) if self.schedule.staged else None

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """In the order of memory; that of open strides is known beforehand."""
        _, down, right, channel = self.x_strides
        g, group = self.g, self.dot.group
        taps = [Term("h", g.taps[1], down * g.dilation[1]), Term("w", g.taps[2], right * g.dilation[2])]
        found = [*taps, Term("c", self.dot.steps(g.channels), channel * group)]
        return tuple(term for term in found if term.extent > 1)

    @property
    def num_chunks(self) -> Any:
        return self.g.batch * self.bands * self.g.groups * self.schedule.panel_chunks

    @property
    def scratch_bytes(self) -> int:
        """The input of a band: ``most_rows`` steps lie within the budget or are one, and the taps reach further."""
        if self.stage is None:
            return 0
        budget = int(self.target.l2_bytes * MAX_SCRATCH_SHARE) // self.dot.x.size
        beyond = self.g.span(1, 1) * high(self.stage.strides[1])
        return -(-(max(budget, high(self.row_elements)) + beyond) * self.dot.x.size // CACHE_LINE) * CACHE_LINE

    def ahead(self, width: int) -> Ahead | None:
        if not self.schedule.prefetch:
            return None
        at_once = self.tiles.groups if self.dot.tiled else 1
        ahead = Ahead.of(self.dot, width, self.steps, at_once, self.depth, self._tiles_of_a_band())
        return replace(ahead, even=False)  # a call may have fewer tiles than were counted on

    def _tiles_of_a_band(self) -> int:
        columns = -(-nominal(self.g.out_size[2]) // self.schedule.width)
        return max(1, min(AHEAD_TILES, columns * nominal(self.most_rows)))

    def text(self) -> str:
        lines = self.dot.types(self.target)
        for width, valid in self.panels.kinds():
            for columns in self.widths:
                lines += self.tile(1, columns, width, valid)
            lines += self.any_width(valid)
        return "\n".join([*lines, *self.main(), ""])

    def any_width(self, valid: int) -> list[str]:
        """The function that calls the tile of a width known at run time."""
        passed = f"args, x, panel, {'ahead, ' if self.schedule.prefetch else ''}n, 0, h0, w0, m0"
        cases = [f"case {width}: {direct.tile_name(1, width, valid)}({passed}); break;" for width in self.widths]
        head = f"static inline void tile_x{valid}(int64_t columns, void *const *args, {self.operands}"
        return block(f"{head}, int64_t n, int64_t h0, int64_t w0, int64_t m0)", block("switch (columns)", cases))

    def main(self) -> list[str]:
        g, s, x = self.g, self.schedule, self.problem.x
        body = [
            *dims(self.problem.reads, self.problem.writes),
            f"const int64_t bands = {self.bands}, part = chunk % {s.panel_chunks};",
            f"const int64_t group = chunk / {s.panel_chunks} % {g.groups};",
            f"const int64_t outer = chunk / {s.panel_chunks * g.groups}, band = outer % bands, n = outer / bands;",
            *share("h_", "band", g.out_size[1], "bands", ("begin", "end")),
            *share("p", "part", self.panels.count, s.panel_chunks),
            f"const int64_t d = 0, tiles = ({g.out_size[2]} + {s.width - 1}) / {s.width};",
            f"const int64_t columns = ({g.out_size[2]} + tiles - 1) / tiles;",
            f"const int64_t num_large = {g.out_size[2]} - tiles * (columns - 1);",
            f"const {x.dtype.c} *x = (const {x.dtype.c} *)args[0] + {self._x_begin()};",
            "(void)d, (void)scratch;",
        ]
        body += self.stage.copy() if self.stage else []
        body += self.prologue()
        for first, end, width, valid in self.panels.ranges():
            body += clipped("p", first, end, "p0", "p1", [*self.panel(width, valid), *self.walk_open(width, valid)])
        body += self.epilogue()
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)

    def call(self, columns: str, valid: int, passed: str) -> str:
        """C: computes a tile of so many columns."""
        return f"tile_x{valid}({columns}, {passed});"

    def prologue(self) -> list[str]:
        """C: what a chunk does before its tiles."""
        return []

    def epilogue(self) -> list[str]:
        """C: what it does after them."""
        return []

    def walk_open(self, width: int, valid: int) -> list[str]:
        """C: the tiles of the band for one panel."""
        _, height_step, width_step, _ = self.x_strides
        ahead = self.ahead(width)
        base, row = ("staged", "(h0 - h_begin)") if self.stage else ("x", "h0")
        where = offset([row, "w0"], [height_step * self.g.step[1], width_step * self.g.step[2]])
        passed = f"args, {base} + {where}, panel, {'ahead, ' if ahead else ''}n, h0, w0, m0"
        each = [
            "const int64_t w0 = v * (columns - 1) + (v < num_large ? v : num_large);",
            self.call("v < num_large ? columns : columns - 1", valid, passed),
            *([ahead.advance] if ahead else []),
        ]
        start = [f"const int64_t m0 = group * {self.g.filters} + p * {self.panels.width};", *(ahead.begin if ahead else [])]
        return [*start, *loop("h0", "h_begin", "h_end", loop("v", 0, "tiles", each))]


@dataclass(frozen=True)
class OpenTiledKernel(OpenKernel):
    """On the matrix unit: tiles of one band, whose height is that of the call."""

    @property
    def tiles(self) -> amx.Tiles:
        inner = amx.split(self.loops(self.panels.widest), self.dot)[1]
        vectors = self.panels.widest // self.panels.lanes
        return amx.Tiles(("columns",), vectors, inner.x_step // self.dot.group, self.dot)

    def text(self) -> str:
        lines = self.dot.types(self.target)
        for width, valid in self.panels.kinds():
            lines += self.banded_tile(width, valid)
        return "\n".join([*lines, *self.main(), ""])

    def banded_tile(self, width: int, valid: int) -> list[str]:
        """The function of a tile of ``columns`` outputs, of which ``most`` are computed."""
        right, vectors = self.x_strides[2] * self.g.step[2], width // self.panels.lanes
        body = ["const int64_t d = 0, skipped = most - columns;", *dims(self.problem.reads, self.problem.writes)]
        body += amx.sums(
            self.tiles, vectors, [amx.Band(0, 0)], right, amx.ROWS, self.loops(width), self.ahead(width), "skipped"
        )  # fmt: skip
        body += self.results("columns", "const int64_t h = h0, w = w0 + i;", valid, self.problem.epilogue)
        counts = "int64_t most, int64_t columns, void *const *args"
        head = f"static __attribute__((noinline)) void tile{valid}({counts}, {self.operands}"
        return block(f"{head}, int64_t n, int64_t h0, int64_t w0, int64_t m0)", body)

    def prologue(self) -> list[str]:
        return self.tiles.begin

    def epilogue(self) -> list[str]:
        return [amx.END]

    def call(self, columns: str, valid: int, passed: str) -> str:
        return f"tile{valid}(columns, {columns}, {passed});"
