"""Direct convolution in C.

A chunk is (image, depth, group, band of rows, panels of filters). It stages the input rows that it reads, when they need
padding or converting, and walks the tiles of its band panel by panel. Weights are packed [group][panel][taps and
channels][width] at build; run-time weights are packed panel by panel into scratch.

Where an instruction sums pairs or fours and the channels do not come in such groups (the three of an image), groups run over
the taps of a row and their channels together. The last group of a row may reach into the next pixel, whose weight is zero: a
NaN or infinity there is seen one output early.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from redline.base.shapes import StaticShape, contiguous_strides, size
from redline.kernels import amx, cexpr, dot, narrow, start, tile
from redline.kernels.conv import geometry
from redline.kernels.conv.geometry import Geometry, Term
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.schedule import Direct, summed
from redline.kernels.conv.staging import Stage
from redline.kernels.ctext import block, clipped, loop, offset, share
from redline.kernels.dot import Dot
from redline.kernels.expr import Expr
from redline.kernels.parts import dims
from redline.kernels.problem import CpuTarget, KernelCode, Packing
from redline.kernels.start import Start
from redline.kernels.tile import Ahead, Loop, Panels, Split


def render(problem: Problem, schedule: Direct, target: CpuTarget) -> KernelCode:
    return code(DirectKernel(problem, schedule, target))


def plain_dot(problem: Problem) -> Dot:
    return dot.plain(problem.x.dtype)


def code(kernel: "DirectKernel") -> KernelCode:
    text = kernel.text()
    packings = {1: kernel.packing()} if kernel.problem.w.constant else {}
    return KernelCode("conv", cexpr.prelude(text) + text, kernel.num_chunks, kernel.scratch_bytes, packings)


@dataclass(frozen=True)
class DirectKernel:
    problem: Problem
    schedule: Direct
    target: CpuTarget

    @cached_property
    def g(self) -> Geometry:
        return geometry.of(self.problem)

    @cached_property
    def panels(self) -> Panels:
        return self.g.panels(self.schedule.vectors, self.problem, self.target)

    @cached_property
    def rows(self) -> Split:
        """Tiles along the height."""
        return Split.of_at_most(self.g.out_size[1], self.schedule.height)

    @cached_property
    def columns(self) -> Split:
        """Tiles along the width."""
        return Split.of_at_most(self.g.out_size[2], self.schedule.width)

    @cached_property
    def stage(self) -> Stage | None:
        most_rows = -(-self.rows.count // self.schedule.bands) * self.rows.size
        return Stage.of(self.g, most_rows, self.problem, self.dot, self.summed != self.g) if self.schedule.staged else None

    @cached_property
    def summed(self) -> Geometry:
        return summed(self.g, self.problem, self.dot)

    @property
    def x_strides(self) -> StaticShape:
        """Of x as the tiles read it: (depth, height, width, channel)."""
        return self.stage.strides if self.stage else self.g.x_strides[1:]

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        steps = [stride * dilation for stride, dilation in zip(self.x_strides, self.g.dilation, strict=False)]
        if self.stage:  # staged slices lie close, whatever the dilation along the depth
            steps[0] = self.x_strides[0]
        return geometry.terms(self.summed, tuple(steps), self.x_strides[3], self.dot)

    @cached_property
    def dot(self) -> Dot:
        return dot.of(self.schedule.dot, self.problem.x.dtype, self.problem.w.dtype)

    @property
    def depth(self) -> int:
        """Elements of a packed panel for each of its columns."""
        return (self.steps * self.dot.parts + self.dot.head) * self.dot.group

    @property
    def steps(self) -> int:
        """Groups of the inner sum."""
        return self.dot.steps(self.summed.channels) * size(self.summed.taps)

    @property
    def chunk_extents(self) -> StaticShape:
        g, s = self.g, self.schedule
        return (g.batch, g.out_size[0], s.bands, g.groups, s.panel_chunks)

    @property
    def num_chunks(self) -> int:
        return size(self.chunk_extents)

    @property
    def staged_bytes(self) -> int:
        return self.stage.num_bytes if self.stage else 0

    @property
    def scratch_bytes(self) -> int:
        packed = 0 if self.problem.w.constant else self.depth * max(width for width, _ in self.panels.kinds())
        return self.staged_bytes + packed * self.dot.w.size

    def packing(self) -> Packing:
        """The weights in panels: [group of filters][panel][head and terms][width][group of channels]."""
        g, cut, dot, order = self.summed, self.panels, self.dot, "".join(term.name for term in self.terms)
        is_folded = g != self.g

        def apply(array: np.ndarray) -> np.ndarray:
            if is_folded:  # [filter, channel, taps..., column] to [filter, (column, channel), taps...]
                array = np.moveaxis(array, -1, 1)
            filters = array.reshape(g.groups, g.filters, g.channels, *g.taps)
            filters = np.pad(filters, ((0, 0), (0, 0), (0, dot.steps(g.channels) * dot.group - g.channels), *((0, 0),) * 3))
            filters = filters.reshape(g.groups, g.filters, -1, dot.group, *g.taps)
            axes = {"c": 2, "d": 4, "h": 5, "w": 6}
            first = [axes[name] for name in order]
            rest = [axis for axis in axes.values() if axis not in first]
            ordered = filters.transpose(0, *rest, *first, 3, 1).reshape(g.groups, -1, g.filters)
            return tile.pack_panels(ordered, cut, dot)

        kind = f"{order}{'-folded' if is_folded else ''}"
        return Packing(f"filters{cut.width}x{cut.lanes}-{kind}-{g.groups}-{dot.name}{dot.w.name}", apply)

    def text(self) -> str:
        return "\n".join([*self.functions(), *self.main(), ""])

    def functions(self) -> list[str]:
        """C: the tiles."""
        lines = self.dot.types(self.target)
        for width, valid in self.panels.kinds():
            for rows in self.rows.sizes:
                for columns in self.columns.sizes:
                    lines += self.tile(rows, columns, width, valid)
        return lines

    def ahead(self, width: int) -> Ahead | None:
        """How the next panel is fetched, where the schedule wants that."""
        if not self.schedule.prefetch:
            return None
        at_once = self.tiles.groups if self.dot.tiled else 1
        tiles = self.rows.count // self.schedule.bands * self.columns.count
        return Ahead.of(self.dot, width, self.steps, at_once, self.depth, tiles)

    @property
    def tiles(self) -> amx.Tiles:
        """The registers of the matrix unit: a band for each row of outputs."""
        inner = amx.split(self.loops(self.panels.widest), self.dot)[1]
        heights, vectors = (self.columns.size,) * self.rows.size, self.panels.widest // self.panels.lanes
        return amx.Tiles(heights, vectors, inner.x_step // self.dot.group, self.dot)

    def loops(self, width: int) -> list[Loop]:
        """The inner sum over a panel of ``width``."""
        return geometry.loops(self.terms, width * self.dot.group) or [Loop(1, self.dot.group, 0)]

    def start(self, width: int, valid: int) -> Start:
        """What the sums of such a panel begin with."""
        return start.of_products(self.problem, self.dot, width == valid)

    def sums(self, rows: int, columns: int, width: int, valid: int) -> list[str]:
        """C: ``sums[rows * columns][width]``."""
        _, height_step, width_step, _ = self.x_strides
        down, right = height_step * self.g.step[1], width_step * self.g.step[2]
        vectors, loops, ahead = width // self.panels.lanes, self.loops(width), self.ahead(width)
        if not self.dot.tiled:
            offsets = [i * down + j * right for i in range(rows) for j in range(columns)]
            lines = tile.inner_product(offsets, vectors, loops, self.dot, ahead, start=self.start(width, valid).at("m0"))
            return lines + tile.spill(rows * columns, vectors, width, self.problem.acc)
        skipped = self.columns.size - columns
        bands = [amx.Band(i * down, i * columns) for i in range(rows)]
        parts = (self.stage.part, self.steps * self.dot.group * width) if self.stage else (0, 0)
        return amx.sums(self.tiles, vectors, bands, right, rows * columns + skipped, loops, ahead, skipped, *parts)

    def tile(self, rows: int, columns: int, width: int, valid: int) -> list[str]:
        """The function that computes a tile and stores it through the epilogue."""
        body = [*dims(self.problem.reads, self.problem.writes), *self.sums(rows, columns, width, valid)]
        place = f"const int64_t h = h0 + i / {columns}, w = w0 + i % {columns};"
        body += self.results(rows * columns, place, valid, self.start(width, valid).epilogue)
        head = f"static __attribute__((noinline)) void {tile_name(rows, columns, valid)}(void *const *args, "
        return block(f"{head}{self.operands}, int64_t n, int64_t d, int64_t h0, int64_t w0, int64_t m0)", body)

    @property
    def operands(self) -> str:
        """C: the parameters of every function of a tile."""
        ahead = f", {Ahead.DECLARED}" if self.schedule.prefetch else ""
        return f"const {self.dot.x.c} *x, const {self.dot.w.c} *panel{ahead}"

    def results(self, count: int | str, place: str, valid: int, epilogue: Expr) -> list[str]:
        """C: ``count`` outputs from ``sums`` through the epilogue; ``place`` declares where output i lies."""
        reads = self.problem.reads
        lines = cexpr.pointers(reads[2:], [f"arg{i}" for i in range(2, len(reads))], first=2)
        lines += cexpr.pointers(self.problem.writes, ["out"], first=len(reads), const=False)
        return lines + narrow.rows(
            count, valid, self.panels.lanes, epilogue, self.problem.out, self.target,
            [place], "const int64_t m = m0 + j;",
            offset(["n", "d", "h", "w", "m"], self.g.out_strides), self.g.out_strides[-1], self.render, bool(self.dot.tiled),
        )  # fmt: skip

    def render(self, expr: Expr) -> tuple[list[str], str]:
        """C: statements and value of an epilogue of ``sums[i][j]``."""
        extents = self.problem.out.shape
        return cexpr.Renderer(self.problem.reads, self.g.coordinates, ["sums[i][j]"], extents=extents).render(expr)

    def main(self) -> list[str]:
        s, part = self.schedule, "chunk"
        body = []
        for name, extent in reversed(list(zip(("n", "d", "band", "group", "part"), self.chunk_extents, strict=True))):
            body.append(f"const int64_t {name} = {f'{part} % {extent}' if extent > 1 else 0};")
            part = f"{part} / {extent}" if extent > 1 else part
        body += [*share("t", "band", self.rows.count, s.bands), *share("p", "part", self.panels.count, s.panel_chunks)]
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", [*body, *self.band()])

    def band(self) -> list[str]:
        """C: the tiles from row ``t0`` of them to ``t1``, of the panels from ``p0`` to ``p1``."""
        x = self.problem.x.dtype.c
        body = [f"const {x} *x = (const {x} *)args[0] + {self._x_begin()};"]
        body.append(f"const int64_t h_begin = {self.rows.begin('t0')}, h_end = {self.rows.begin('t1')};" if self.stage else "")
        body += self.stage.copy() if self.stage else []
        body += self.tiles.begin if self.dot.tiled else []
        for first, end, width, valid in self.panels.ranges():
            ahead = self.ahead(width)
            begin = ahead.begin if ahead else []
            walk = self.walk(valid, ahead)
            body += clipped("p", first, end, "p0", "p1", [*self.panel(width, valid), *begin, *walk])
        body.append(amx.END if self.dot.tiled else "")
        return [line for line in body if line]

    def _x_begin(self) -> str:
        """C: where the image, and the group's channels, begin; the depth too when x is read in place."""
        n, d, _, _, c = self.g.x_strides
        depth = 0 if self.stage else d * self.g.step[0]
        return offset(["n", "d", "group"], [n, depth, c * self.g.channels])

    def panel(self, width: int, valid: int) -> list[str]:
        """C: ``panel``, the packed panel p of the group."""
        w = self.dot.w.c
        if not self.problem.w.constant:
            return self.pack(width, valid)
        where = offset(["group", "p"], [self.panels.padded * self.depth, self.panels.width * self.depth])
        return [f"const {w} *panel = (const {w} *)args[1] + {where};"]

    def pack(self, width: int, valid: int) -> list[str]:
        """C: ``panel``, packed into scratch from weights that are only known at run time."""
        w, g, dot = self.problem.w, self.g, self.dot
        m, c, *taps = w.strides
        strides = dict(zip(geometry.AXES[3 - len(taps) :], taps, strict=True)) | {"c": c * dot.group}
        names = [f"q{i}" for i in range(len(self.terms))]
        source = offset(
            [f"(group * {g.filters} + p * {self.panels.width} + j)", *names, "e"],
            [m, *(strides[term.name] for term in self.terms), c],
        )
        steps = contiguous_strides([*(term.extent for term in self.terms), width, dot.group])
        place = offset([*names, "j", "e"], steps)
        places = [f"packed[{part * self.steps * width * dot.group} + {place}]" for part in range(dot.parts)]
        fill = [f"{each} = 0;" for each in places]
        copy = tile.staged(places, f"source[{source}]", w.dtype, dot.w)
        if g.channels < dot.steps(g.channels) * dot.group:
            channel = next((name for name, term in zip(names, self.terms, strict=True) if term.name == "c"), "0")
            outside = f"if ({channel} * {dot.group} + e >= {g.channels})"
            copy = [*block(outside, [*fill, "continue;"]), *copy]
        lines = [*loop("j", 0, valid, loop("e", 0, dot.group, copy))]
        lines += loop("j", valid, width, loop("e", 0, dot.group, fill)) if valid < width else []
        for name, term in reversed(list(zip(names, self.terms, strict=True))):
            lines = loop(name, 0, term.extent, lines)
        return [
            f"{dot.w.c} *restrict packed = ({dot.w.c} *)((char *)scratch + {self.staged_bytes});",
            f"const {w.dtype.c} *restrict source = args[1];",
            *lines,
            f"const {dot.w.c} *panel = packed;",
        ]

    def walk(self, valid: int, ahead: Ahead | None) -> list[str]:
        """C: the tiles of the band for one panel."""
        lines, before = [], 0
        _, height_step, width_step, _ = self.x_strides
        for rows, num_rows in zip(self.rows.sizes, (self.rows.num_large, self.rows.count - self.rows.num_large), strict=False):
            inner, left = [], 0
            for columns, num in zip(self.columns.sizes, (self.columns.num_large, self.columns.count), strict=False):
                end = self.columns.count if columns != self.columns.size else self.columns.num_large
                base = "staged" if self.stage else "x"
                row = "(h0 - h_begin)" if self.stage else "h0"
                where = offset([row, "w0"], [height_step * self.g.step[1], width_step * self.g.step[2]])
                name, pointer = tile_name(rows, columns, valid), "panel, ahead" if ahead else "panel"
                call = [f"{name}(args, {base} + {where}, {pointer}, n, d, h0, w0, m0);", *([ahead.advance] if ahead else [])]
                inner += loop("v", left, end, [f"const int64_t w0 = {self.columns.begin('v')};", *call])
                left = num
            head = [f"const int64_t h0 = {self.rows.begin('t')};"]
            lines += clipped("t", before, before + num_rows, "t0", "t1", [*head, *inner])
            before += num_rows
        return [f"const int64_t m0 = group * {self.g.filters} + p * {self.panels.width};", *lines]


def tile_name(rows: int, columns: int, valid: int) -> str:
    return f"tile_{rows}x{columns}x{valid}"
