"""Depthwise convolutions with open extents.

Where only the batch is open, the kernel for one image is called for each. An open image is staged with its padding, so that no
tile is at a border; the width of a call is cut into tiles of nearly the same number of columns, and there is a function for
every number up to the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from redline.base.errors import BuildError
from redline.base.extents import ceil_div, high, is_open, maximum, minimum
from redline.kernels import per_image, tile
from redline.kernels.conv import geometry
from redline.kernels.conv.staging import CACHE_LINE, Stage
from redline.kernels.ctext import block, loop, share
from redline.kernels.depthwise import c, schedule
from redline.kernels.depthwise.c import HEAD, Border, DepthwiseKernel
from redline.kernels.depthwise.paired import PairedKernel
from redline.kernels.depthwise.problem import Problem
from redline.kernels.depthwise.rows import RowsKernel
from redline.kernels.depthwise.schedule import Schedule
from redline.kernels.dot import Dot
from redline.kernels.parts import any_open, dims
from redline.kernels.problem import CpuTarget, KernelCode

BUDGET_SHARE = 0.4  # of the second-level cache, for the staged rows of a chunk


@dataclass(frozen=True)
class PerImage:
    """``each`` for every image of an open batch."""

    each: Schedule


@dataclass(frozen=True)
class OpenSchedule:
    """Tiles of at most ``columns``, and at least ``min_bands`` bands of rows where the image has them."""

    columns: int
    min_bands: int = 1


def render(problem: Problem, chosen: Schedule | PerImage | OpenSchedule, target: CpuTarget) -> KernelCode:
    if isinstance(chosen, PerImage):
        return per_image.wrapped(_closed(per_image.images(problem), chosen.each, target), problem)
    if isinstance(chosen, OpenSchedule):
        closed = Schedule(chosen.columns, chosen.min_bands, 1, staged=True)
        return c.code(_OpenKernel(problem, closed, target))
    return _closed(problem, chosen, target)


def _closed(problem: Problem, chosen: Schedule, target: CpuTarget) -> KernelCode:
    return c.render(problem, chosen, target, kind_of(chosen))


def kind_of(chosen: Schedule) -> type[DepthwiseKernel]:
    """What renders a schedule of closed extents."""
    if chosen.paired:
        return PairedKernel
    return RowsKernel if chosen.rows > 1 else DepthwiseKernel


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule | PerImage | OpenSchedule]:
    """The legal candidates, the best guess first; raises BuildError where channels or taps are open."""
    if not any_open(problem.reads, problem.writes):
        return schedule.schedules(problem, target)
    if per_image.applies(problem):
        return [PerImage(s) for s in schedule.schedules(per_image.images(problem), target)]
    g = geometry.of(problem)
    if any(map(is_open, problem.w.shape)) or g.size[0] != 1 or g.out_size[0] != 1:
        seen = f"a depthwise convolution of {list(problem.x.shape)} with {list(problem.w.shape)}"
        raise BuildError(
            "depthwise", seen, "only the batch and one or two axes of an image may be open", "fix more with --shapes"
        )
    limit = min(schedule.MAX_COLUMNS, target.num_registers - 6)
    bands = schedule.CHUNKS_PER_THREAD * target.num_threads if target.num_threads > 1 else 1
    return [OpenSchedule(columns, bands) for columns in (8, 14, 6, 4) if columns <= limit]


@dataclass(frozen=True)
class _OpenKernel(DepthwiseKernel):
    @cached_property
    def stage(self) -> Stage:
        return Stage.of(self.g, 1, self.problem, Dot("", self.held, self.held, self.held))

    @property
    def budget(self) -> int:
        return int(self.target.l2_bytes * BUDGET_SHARE) // self.held.size

    @cached_property
    def bands(self) -> Any:
        """As many as the threads want, and as it takes for a band's input to lie in the second-level cache."""
        most = maximum(1, minimum(self.budget // self._row, ceil_div(self.g.out_size[1], self.schedule.bands)))
        return ceil_div(self.g.out_size[1], most)

    @property
    def _row(self) -> Any:
        """Elements of the staged input that one more row of outputs needs."""
        return self.stage.strides[1] * self.g.step[1]

    @property
    def num_chunks(self) -> Any:
        return self.g.batch * self.bands

    @property
    def staged_bytes(self) -> int:
        beyond = self.g.span(1, 1) * high(self.stage.strides[1])
        return -(-(max(self.budget, high(self._row)) + beyond) * self.held.size // CACHE_LINE) * CACHE_LINE

    @property
    def widths(self) -> range:
        return range(1, min(self.schedule.columns, high(self.g.out_size[2])) + 1)

    def text(self) -> str:
        element = self.held.size
        lines = [
            f"typedef {self.type} vec{width} __attribute__((vector_size({width * element}), aligned({element})));"
            for width in self.vector_widths()
        ]
        lines += [line for width in self.vector_widths() for line in self.load_types(width)]
        for width in self.widths:
            lines += self.tile(f"tile{width}", Border(width, frozenset()))
        return "\n".join([*lines, *self.any_width(), *self.open_main(), ""])

    def any_width(self) -> list[str]:
        """The function that calls the tile of a width known at run time."""
        operands = f"const {self.x_type.c} *x, const {self.type} *taps"
        cases = [f"case {w}: tile{w}(args, x, taps, n, 0, h, w0, v0, v1); break;" for w in self.widths]
        head = f"static inline void tile_any(int64_t columns, void *const *args, {operands}"
        return block(f"{head}, int64_t n, int64_t h, int64_t w0, int64_t v0, int64_t v1)", block("switch (columns)", cases))

    def open_main(self) -> list[str]:
        g, x, width = self.g, self.problem.x, self.schedule.columns
        step = self.stage.strides[1] * g.step[1]
        vectors = -(-g.channels // tile.lanes(self.held, self.target))
        each = [
            "const int64_t w0 = i * (columns - 1) + (i < num_large ? i : num_large);",
            f"tile_any(i < num_large ? columns : columns - 1, args, staged - h_begin * {step} "
            f"+ w0 * {g.step[2] * self.stage.strides[2]}, taps, n, h, w0, 0, {vectors});",
        ]
        body = [
            *dims(self.problem.reads, self.problem.writes),
            f"const int64_t bands = {self.bands}, band = chunk % bands, n = chunk / bands, d = 0;",
            *share("h_", "band", g.out_size[1], "bands", ("begin", "end")),
            f"const int64_t tiles = ({g.out_size[2]} + {width - 1}) / {width};",
            f"const int64_t columns = ({g.out_size[2]} + tiles - 1) / tiles;",
            f"const int64_t num_large = {g.out_size[2]} - tiles * (columns - 1);",
            f"const {x.dtype.c} *x = (const {x.dtype.c} *)args[0] + n * {g.x_strides[0]};",
            "(void)d;",
            *self.stage.copy(),
            *self.weights(),
            *loop("h", "h_begin", "h_end", loop("i", 0, "tiles", each)),
        ]
        return block(HEAD, body)
