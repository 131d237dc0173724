"""Winograd's convolution of images whose extents are open: the blocks of a call, however many, are dealt to chunks.

A chunk has at most ``block`` of them, and cuts them into tiles of nearly the same height, for each of which up to the tallest
there is a function. The threads that share the blocks get whole rounds of chunks.
"""

from dataclasses import dataclass, field
from typing import Any

from redline.base.extents import ceil_div
from redline.kernels.conv import winograd
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.schedule import Schedule, Winograd
from redline.kernels.conv.winograd import WinogradKernel
from redline.kernels.ctext import block, loop, share
from redline.kernels.problem import CpuTarget, KernelCode
from redline.kernels.tile import Ahead


@dataclass(frozen=True)
class OpenWinograd(Schedule):
    """As ``Winograd``; chunks of at most ``block`` blocks, a multiple of ``sharing`` of them."""

    outputs: int
    rows: int
    vectors: int
    block: int
    sharing: int = 1
    panel_chunks: int = 1
    prefetch: bool = False


def render(problem: Problem, s: OpenWinograd, target: CpuTarget) -> KernelCode:
    closed = Winograd(s.outputs, s.rows, s.vectors, 1, s.panel_chunks, s.prefetch)
    return winograd.code(_OpenKernel(problem, closed, target, s))


@dataclass(frozen=True)
class _OpenKernel(WinogradKernel):
    open: OpenWinograd = field(default_factory=lambda: OpenWinograd(4, 1, 1, 1))

    @property
    def block(self) -> int:
        return self.open.block

    @property
    def tile_chunks(self) -> Any:
        return ceil_div(self.num_tiles, self.open.block * self.open.sharing) * self.open.sharing

    @property
    def num_chunks(self) -> Any:
        return self.tile_chunks * self.schedule.panel_chunks

    @property
    def heights(self) -> range:
        return range(1, min(self.schedule.rows, self.open.block) + 1)

    def ahead(self, width: int) -> Ahead | None:
        if not self.schedule.prefetch:
            return None
        step_bytes = width * self.problem.acc.size
        tiles = -(-self.open.block // self.schedule.rows)
        return Ahead(self.g.channels, step_bytes, self.g.channels * step_bytes, tiles)

    def text(self) -> str:
        lines = [*self.dot.types(self.target), *self.transforms(), *self.gather(), *self.patch_in()]
        for width, valid in self.panels.kinds():
            for rows in self.heights:
                lines += self.multiply(rows, width, valid)
            lines += self.any_height(valid)
            lines += self.patch_out(width, valid)
        return "\n".join([*lines, *self.main(), ""])

    def any_height(self, valid: int) -> list[str]:
        """The function that multiplies a number of blocks known at run time."""
        ahead = self.schedule.prefetch
        passed = f"product, x, panel{', ahead' if ahead else ''}"
        cases = [f"case {rows}: multiply_{rows}x{valid}({passed}); break;" for rows in self.heights]
        operands = (
            f"{self.type} *product, const {self.type} *x, const {self.type} *panel{f', {Ahead.DECLARED}' if ahead else ''}"
        )
        return block(f"static inline void multiply_x{valid}(int64_t rows, {operands})", block("switch (rows)", cases))

    def main(self) -> list[str]:
        s, products = self.schedule, self.num_planes * self.plane
        rows = s.rows
        body = [
            *self.dims,
            f"const int64_t chunks = {self.tile_chunks};",
            f"const int64_t tiles = chunk / {s.panel_chunks}, part = chunk % {s.panel_chunks};",
            *share("t", "tiles", self.num_tiles, "chunks"),
            *share("p", "part", self.panels.count, s.panel_chunks),
            "if (t0 == t1) return;",
            f"const int64_t count = (t1 - t0 + {rows - 1}) / {rows}, height = (t1 - t0 + count - 1) / count;",
            "const int64_t num_large = t1 - t0 - count * (height - 1);",
            f"{self.type} *planes = scratch, *product = planes + {products}, *patch = product + {self.product_elements};",
            "(void)patch;",
            *loop("t", "t0", "t1", self.tile_in()),
        ]
        return self.kernel(body)

    def products(self, width: int, valid: int) -> list[str]:
        ahead = self.ahead(width)
        call = [
            "const int64_t r0 = r * (height - 1) + (r < num_large ? r : num_large);",
            f"multiply_x{valid}(r < num_large ? height : height - 1, to + r0 * {width}, x + r0 * {self.row}, "
            f"panel{', ahead' if ahead else ''});",
            *([ahead.advance] if ahead else []),
        ]
        return [*(ahead.begin if ahead else []), *loop("r", 0, "count", call)]
