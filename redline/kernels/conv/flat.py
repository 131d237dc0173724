"""Convolution on the matrix unit over flattened rows, in C.

    position q = h * pitch + w        sums[q][m] = sum over taps of plane(tap)[q + shift(tap)][c] * w[tap][c][m]

An instruction multiplies 16 rows of x that lie at one distance. A narrow image does not have 16 outputs in a row, so rows of
a staged image are taken as one: tiles go over the end of a row into the next, and what is summed for the columns between,
where there is no output, is thrown away. With a stride the staged pixels are sorted by their remainders (a *plane* for each
remainder along height and width that some tap meets), so that outputs side by side read pixels side by side; of one tap only
the pixels that are read are copied. Without a stride a row's right padding is the next row's left padding.

A chunk is (image, band of output rows, panels of filters). Weights are packed [panel][tap][channels][width] at build.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from redline.base.shapes import size
from redline.kernels import amx, cexpr, dot, narrow, tile
from redline.kernels.conv import geometry
from redline.kernels.conv.geometry import Geometry
from redline.kernels.conv.planes import Planes
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.schedule import Flat
from redline.kernels.ctext import block, clipped, offset, share
from redline.kernels.dot import Dot, groups_at_once
from redline.kernels.expr import Expr
from redline.kernels.parts import dims
from redline.kernels.problem import CpuTarget, KernelCode, Packing
from redline.kernels.tile import Ahead, Loop, Panels


def render(problem: Problem, schedule: Flat, target: CpuTarget) -> KernelCode:
    kernel = FlatKernel(problem, schedule, target)
    text = kernel.text()
    return KernelCode("conv", cexpr.prelude(text) + text, kernel.num_chunks, kernel.scratch_bytes, {1: kernel.packing()})


@dataclass(frozen=True)
class FlatKernel:
    problem: Problem
    schedule: Flat
    target: CpuTarget

    @cached_property
    def g(self) -> Geometry:
        return geometry.of(self.problem)

    @cached_property
    def dot(self) -> Dot:
        return dot.of(self.schedule.dot, self.problem.x.dtype, self.problem.w.dtype)

    @cached_property
    def panels(self) -> Panels:
        return self.g.panels(self.schedule.vectors, self.problem, self.target)

    @cached_property
    def planes(self) -> Planes:
        rows = -(-self.g.out_size[1] // self.schedule.bands)
        return Planes(self.g, rows, self.problem, self.dot)

    @property
    def num_chunks(self) -> int:
        return self.g.batch * self.schedule.bands * self.schedule.panel_chunks

    @property
    def scratch_bytes(self) -> int:
        return self.planes.num_bytes

    @property
    def depth(self) -> int:
        """Elements of a packed panel for each of its columns."""
        return self.dot.steps(self.g.channels) * size(self.g.taps) * self.dot.group

    def packing(self) -> Packing:
        """The weights in panels: [panel][tap and channels][width][group of channels]."""
        g, cut, dot = self.g, self.panels, self.dot
        spare = dot.steps(g.channels) * dot.group - g.channels

        def apply(array: np.ndarray) -> np.ndarray:
            filters = array.reshape(g.filters, g.channels, size(g.taps))
            ordered = np.pad(filters, ((0, 0), (0, spare), (0, 0))).transpose(2, 1, 0)
            return tile.pack_panels(ordered.reshape(1, -1, g.filters), cut, dot)

        return Packing(f"filters{cut.width}x{cut.lanes}-flat-{dot.name}{dot.w.name}", apply)

    def text(self) -> str:
        lines = self.dot.types(self.target)
        for width, valid in self.panels.kinds():
            for bands in range(1, self.schedule.height + 1):
                lines += self.tile(bands, width, valid)
        return "\n".join([*lines, *self.main(), ""])

    @property
    def tiles(self) -> amx.Tiles:
        """The registers of the matrix unit."""
        vectors, groups = self.panels.widest // self.panels.lanes, groups_at_once(self.dot.steps(self.g.channels))
        return amx.Tiles((amx.ROWS,) * self.schedule.height, vectors, groups, self.dot)

    def loops(self, width: int) -> list[Loop]:
        """The inner sum over a panel of ``width``: the taps by the table of their offsets, then the channels."""
        steps, group = self.dot.steps(self.g.channels), self.dot.group
        return [Loop(size(self.g.taps), 0, steps * width * group, "tap_offsets"), Loop(steps, group, width * group)]

    def ahead(self, width: int) -> Ahead | None:
        """How the next panel is fetched, where the schedule wants that."""
        if not self.schedule.prefetch:
            return None
        tiles = max(1, self.planes.positions // (amx.ROWS * self.schedule.height))
        return Ahead.of(self.dot, width, self.depth // self.dot.group, self.tiles.groups, self.depth, tiles)

    def tile(self, bands: int, width: int, valid: int) -> list[str]:
        """The function that computes ``bands`` times 16 positions from q0 on and stores those that are outputs."""
        planes, reads = self.planes, self.problem.reads
        places = amx.side_by_side([amx.ROWS] * bands, planes.pixel)
        vectors = width // self.panels.lanes
        body = [*dims(reads, self.problem.writes), *self._tap_offsets()]
        body += amx.sums(self.tiles, vectors, places, planes.pixel, bands * amx.ROWS, self.loops(width), self.ahead(width))
        body += cexpr.pointers(reads[2:], [f"arg{i}" for i in range(2, len(reads))], first=2)
        body += cexpr.pointers(self.problem.writes, ["out"], first=len(reads), const=False)
        body += narrow.rows(
            bands * amx.ROWS, valid, self.panels.lanes, self.problem.epilogue, self.problem.out, self.target,
            self._position(), "const int64_t m = m0 + j;",
            offset(["n", "d", "h", "w", "m"], self.g.out_strides), self.g.out_strides[-1], self.render, in_memory=True,
        )  # fmt: skip
        ahead = f"{Ahead.DECLARED}, " if self.schedule.prefetch else ""
        operands = f"const {self.dot.x.c} *x, const {self.dot.w.c} *panel, {ahead}"
        head = f"static __attribute__((noinline)) void {_tile_name(bands, valid)}(void *const *args, {operands}"
        return block(f"{head}int64_t n, int64_t h_begin, int64_t h_end, int64_t q0, int64_t m0)", ["enum { d = 0 };", *body])

    def _tap_offsets(self) -> list[str]:
        text = ", ".join(str(self.planes.place(*taps)) for taps in product(range(self.g.taps[1]), range(self.g.taps[2])))
        return [f"static const int32_t tap_offsets[] = {{{text}}};"]

    def _position(self) -> list[str]:
        """C: the coordinates of position i of a tile; the next one where it is no output."""
        pitch, width = self.planes.pitch, self.g.out_size[2]
        return [
            f"const uint32_t q = (uint32_t)(q0 + i); const int64_t h = h_begin + q / {pitch}u, w = q % {pitch}u;",
            f"if ({f'w >= {width} || ' if pitch > width else ''}h >= h_end) continue;",
        ]

    def render(self, expr: Expr) -> tuple[list[str], str]:
        """C: statements and value of an epilogue of ``sums[i][j]``."""
        extents = self.problem.out.shape
        return cexpr.Renderer(self.problem.reads, self.g.coordinates, ["sums[i][j]"], extents=extents).render(expr)

    def main(self) -> list[str]:
        s, x = self.schedule, self.problem.x
        body = [
            f"const int64_t n = chunk / {s.bands * s.panel_chunks}, band = chunk / {s.panel_chunks} % {s.bands};",
            f"const int64_t part = chunk % {s.panel_chunks};",
            *share("h_", "band", self.g.out_size[1], s.bands, ("begin", "end")),
            *share("p", "part", self.panels.count, s.panel_chunks),
            f"const {x.dtype.c} *x = (const {x.dtype.c} *)args[0] + n * {self.g.x_strides[0]};",
            *self.planes.copy(),
            f"const int64_t q_end = (h_end - h_begin - 1) * {self.planes.pitch} + {self.g.out_size[2]};",
            *self.tiles.begin,
        ]
        walk = [line for kind in self.panels.ranges() for line in self._walk(*kind)]
        body += self._positions(walk) if s.rows_outer else walk
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", [*body, amx.END])

    def _positions(self, body: Sequence[str]) -> list[str]:
        return block(f"for (int64_t q0 = 0; q0 < q_end; q0 += {self.schedule.height * amx.ROWS})", body)

    def _walk(self, first: int, end: int, width: int, valid: int) -> list[str]:
        """C: the tiles of these panels; of the whole band, or of one place."""
        w, ahead = self.dot.w.c, self.ahead(width)
        lines = [
            f"const {w} *panel = (const {w} *)args[1] + p * {self.panels.width * self.depth};",
            f"const int64_t m0 = p * {self.panels.width};",
            *(ahead.begin if ahead else []),
        ]
        pointer = "panel, ahead" if ahead else "panel"
        calls: Sequence[str] = [
            f"{_tile_name(bands, valid)}(args, staged + q0 * {self.planes.pixel}, {pointer}, n, h_begin, h_end, q0, m0);"
            for bands in range(1, self.schedule.height + 1)
        ]
        body = [f"if (q_end - q0 <= {16 * bands}) {call} else" for bands, call in enumerate(calls[:-1], 1)]
        body += [calls[-1], *([ahead.advance] if ahead else [])]
        return clipped("p", first, end, "p0", "p1", [*lines, *(body if self.schedule.rows_outer else self._positions(body))])


def _tile_name(bands: int, valid: int) -> str:
    return f"tile_{bands}x{valid}"
