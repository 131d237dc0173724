"""3x3 convolution by Winograd's minimal filtering, F(m x m, 3 x 3) of stride 1 or 2, in C.

With B, G and A of the one-dimensional algorithm (filtering.py), an m x m block of outputs is A^T [ (G g G^T) * (B^T d B) ] A,
where g is the 3x3 filter, d the input patch and * the product element by element. Summed over channels, each of the patch's
elements is a matrix product of tiles with filters: 4 times fewer multiply-adds than the definition for m = 4, 2.25 for m = 2;
with stride 2, 1.78 times fewer for m = 4, 1.65 for 3, 1.44 for 2.

A chunk is (block of tiles, panels of filters): it transforms its patches into scratch, then for each panel multiplies and
transforms back. Filters are transformed at build, in float64. A NaN or infinity reaches the whole m x m block of outputs
that its patch belongs to. Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from redline.kernels import cexpr, dot, parts, tile
from redline.kernels.conv import filtering, geometry
from redline.kernels.conv.filtering import Filtering
from redline.kernels.conv.geometry import Geometry
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.schedule import Winograd
from redline.kernels.ctext import block, clipped, loop, offset, share, vector_loop
from redline.kernels.dot import Dot
from redline.kernels.problem import CpuTarget, KernelCode, Packing
from redline.kernels.tile import Ahead, Loop, Panels, Split


def render(problem: Problem, schedule: Winograd, target: CpuTarget) -> KernelCode:
    return code(WinogradKernel(problem, schedule, target))


def code(kernel: "WinogradKernel") -> KernelCode:
    text = kernel.text()
    packings = {1: kernel.packing()}
    return KernelCode("conv", cexpr.prelude(text) + text, kernel.num_chunks, kernel.scratch_bytes, packings)


@dataclass(frozen=True)
class WinogradKernel:
    problem: Problem
    schedule: Winograd
    target: CpuTarget

    @cached_property
    def g(self) -> Geometry:
        return geometry.of(self.problem)

    @property
    def m(self) -> int:
        return self.schedule.outputs

    @property
    def step(self) -> int:
        """The stride, of height and width alike."""
        return self.g.step[1]

    @property
    def filtering(self) -> Filtering:
        return filtering.KINDS[self.step, self.m]

    @property
    def patch(self) -> int:
        """Input pixels along one side of a tile, and products."""
        return filtering.patch(self.step, self.m)

    @property
    def down(self) -> int:
        """Tiles along the height."""
        return -(-self.g.out_size[1] // self.m)

    @property
    def across(self) -> int:
        """Tiles along the width."""
        return -(-self.g.out_size[2] // self.m)

    @property
    def num_tiles(self) -> int:
        return self.g.batch * self.down * self.across

    @property
    def block(self) -> int:
        """The most tiles of a chunk."""
        return -(-self.num_tiles // self.schedule.tile_chunks)

    @property
    def lanes(self) -> int:
        return tile.lanes(self.problem.acc, self.target)

    @property
    def dot(self) -> Dot:
        return dot.plain(self.problem.x.dtype)

    @cached_property
    def panels(self) -> Panels:
        return self.g.panels(self.schedule.vectors, self.problem, self.target)

    @cached_property
    def rows(self) -> Split:
        return Split.of_at_most(self.block, self.schedule.rows)

    @property
    def channels(self) -> int:
        """Channels as whole vectors."""
        return -(-self.g.channels // self.lanes) * self.lanes

    @property
    def row(self) -> int:
        """Elements from one tile to the next in a transformed plane: an odd number of vectors spreads over the cache."""
        return (self.channels // self.lanes | 1) * self.lanes

    @property
    def plane(self) -> int:
        """Elements of one of the planes into which patches are transformed."""
        return (self.block * self.row // self.lanes | 1) * self.lanes

    @property
    def num_planes(self) -> int:
        return self.patch**2

    @property
    def is_direct(self) -> bool:
        """Whether patches inside the image can be read where they lie."""
        g, x = self.g, self.problem.x
        return g.x_strides[4] == 1 and g.channels % self.lanes == 0 and x.dtype == self.problem.acc

    @property
    def num_chunks(self) -> int:
        return self.schedule.tile_chunks * self.schedule.panel_chunks

    @property
    def product_elements(self) -> int:
        return self.num_planes * self.block * max(width for width, _ in self.panels.kinds())

    @property
    def scratch_bytes(self) -> int:
        elements = self.num_planes * self.plane + self.product_elements + self.num_planes * self.channels
        return elements * self.problem.acc.size

    def packing(self) -> Packing:
        transform, cut = self.filtering.of_filter, self.panels

        def apply(array: np.ndarray) -> np.ndarray:
            planes = np.einsum("ia,mcab,jb->ijcm", transform, array.astype(np.float64), transform)
            return tile.pack_panels(planes.reshape(1, -1, array.shape[0]), cut, self.dot)

        kind = f"{self.m}" if self.step == 1 else f"{self.m}s{self.step}"
        return Packing(f"winograd{kind}-{cut.width}x{cut.lanes}-{self.problem.acc.name}", apply)

    def text(self) -> str:
        lines = [*self.dot.types(self.target), *self.transforms(), *self.gather(), *self.patch_in()]
        for width, valid in self.panels.kinds():
            for rows in self.rows.sizes:
                lines += self.multiply(rows, width, valid)
            lines += self.patch_out(width, valid)
        return "\n".join([*lines, *self.main(), ""])

    def transforms(self) -> list[str]:
        head = "static inline __attribute__((always_inline)) void"
        return [
            f"{head} transform_in(const vec *d, vec *y) {{\n  {self.filtering.of_input}\n}}",
            f"{head} transform_out(const vec *d, vec *y) {{\n  {self.filtering.of_output}\n}}",
        ]

    def gather(self) -> list[str]:
        """C: copies a patch with its padding, converted, for patches that cannot be read in place."""
        g, x = self.g, self.problem.x
        _, _, height, width, channel = g.x_strides
        value = cexpr.cast_text(cexpr.from_storage(x.dtype, f"from[c * {channel}]"), x.dtype, self.problem.acc)
        copy = [f"for (int64_t c = 0; c < {g.channels}; ++c) to[c] = {value};"]
        if self.channels > g.channels:
            copy.append(f"for (int64_t c = {g.channels}; c < {self.channels}; ++c) to[c] = 0;")
        body = [
            "const int64_t h = h0 + i, w = w0 + j;",
            f"{self.type} *restrict to = patch + (i * {self.patch} + j) * {self.channels};",
            *block(f"if (h < 0 || h >= {g.size[1]} || w < 0 || w >= {g.size[2]})", [
                f"for (int64_t c = 0; c < {self.channels}; ++c) to[c] = 0;", "continue;",
            ]),
            f"const {x.dtype.c} *from = x + h * {height} + w * {width};",
            *copy,
        ]  # fmt: skip
        head = (
            f"static void gather(void *const *args, {self.type} *restrict patch, const {x.dtype.c} *x, int64_t h0, int64_t w0)"
        )
        return block(head, self.dims + loop("i", 0, self.patch, loop("j", 0, self.patch, body)))

    @property
    def dims(self) -> list[str]:
        return parts.dims(self.problem.reads, self.problem.writes)

    @property
    def type(self) -> str:
        return self.problem.acc.c

    def patch_in(self) -> list[str]:
        """C: the transformed patch: one vector of channels of every plane at a time."""
        p = self.patch
        columns = [
            f"vec d[{p}];",
            f"for (int64_t i = 0; i < {p}; ++i) d[i] = *(const vec *)(x + i * height + j * width + c);",
            f"vec y[{p}];",
            "transform_in(d, y);",
            f"for (int64_t i = 0; i < {p}; ++i) t[i][j] = y[i];",
        ]
        rows = [
            f"vec y[{p}];",
            "transform_in(t[i], y);",
            f"for (int64_t j = 0; j < {p}; ++j) *(vec *)(planes + (i * {p} + j) * {self.plane} + c) = y[j];",
        ]
        body = [f"vec t[{p}][{p}];", *loop("j", 0, p, columns), *loop("i", 0, p, rows)]
        head = f"static __attribute__((noinline)) void patch_in({self.type} *restrict planes, const {self.type} *x"
        walk = block(f"for (int64_t c = 0; c < {self.channels}; c += {self.lanes})", body)
        return block(f"{head}, int64_t height, int64_t width)", walk)

    def multiply(self, rows: int, width: int, valid: int) -> list[str]:
        """C: some tiles of one plane times one panel."""
        offsets = [i * self.row for i in range(rows)]
        vectors = width // self.lanes
        body = tile.inner_product(offsets, vectors, [Loop(self.g.channels, 1, width)], self.dot, self.ahead(width))
        store = f"*(vec *)(product + i * {width} + v * {self.lanes}) = acc[i][v];"
        body += loop("i", 0, rows, loop("v", 0, vectors, [store]))
        head = f"static __attribute__((noinline)) void multiply_{rows}x{valid}({self.type} *restrict product"
        ahead = f", {Ahead.DECLARED}" if self.schedule.prefetch else ""
        return block(f"{head}, const {self.type} *x, const {self.type} *panel{ahead})", body)

    def ahead(self, width: int) -> Ahead | None:
        """How the next plane's panel is fetched, where the schedule wants that."""
        if not self.schedule.prefetch:
            return None
        step_bytes = width * self.problem.acc.size
        return Ahead(self.g.channels, step_bytes, self.g.channels * step_bytes, self.rows.count)

    def patch_out(self, width: int, valid: int) -> list[str]:
        """C: the outputs of one tile and panel, through the epilogue."""
        reads = self.problem.reads
        body = self.dims + cexpr.pointers(reads[2:], [f"arg{i}" for i in range(2, len(reads))], first=2)
        body += cexpr.pointers(self.problem.writes, ["out"], first=len(reads), const=False)
        full = valid // self.lanes
        if full:
            body += loop("u", 0, full, [f"const int64_t c0 = u * {self.lanes};", *self.vector_out(width, self.lanes)])
        if valid % self.lanes:
            body += block("", [f"const int64_t c0 = {full * self.lanes};", *self.vector_out(width, valid % self.lanes)])
        head = f"static __attribute__((noinline)) void patch_out_{valid}(void *const *args, const {self.type} *product"
        return block(f"{head}, int64_t n, int64_t h0, int64_t w0, int64_t m0)", body)

    def vector_out(self, width: int, count: int) -> list[str]:
        """C: ``count`` channels from c0 on of a tile's outputs."""
        p, m, g = self.patch, self.m, self.g
        plane = self.block * width
        columns = [
            f"vec d[{p}];",
            f"for (int64_t i = 0; i < {p}; ++i) d[i] = *(const vec *)(product + (i * {p} + j) * {plane} + c0);",
            f"vec y[{m}];",
            "transform_out(d, y);",
            f"for (int64_t i = 0; i < {m}; ++i) t[i][j] = y[i];",
        ]
        rows = [f"vec y[{m}];", "transform_out(t[i], y);", f"for (int64_t j = 0; j < {m}; ++j) *(vec *)sums[i][j] = y[j];"]
        pixel = ["const int64_t h = h0 + a, w = w0 + b;", *vector_loop(count, self.lanes, self.epilogue())]
        height = self._end("h0", g.out_size[1])
        return [
            f"vec t[{m}][{p}];",
            f"{self.type} sums[{m}][{m}][{self.lanes}] __attribute__((aligned(64)));",
            *loop("j", 0, p, columns),
            *loop("i", 0, m, rows),
            *loop("a", 0, height, loop("b", 0, self._end("w0", g.out_size[2]), pixel)),
        ]

    def _end(self, begin: str, extent: int) -> str:
        """C: how many outputs of a tile that starts at ``begin`` lie in the image."""
        return str(self.m) if extent % self.m == 0 else f"({extent} - {begin} < {self.m} ? {extent} - {begin} : {self.m})"

    def epilogue(self) -> list[str]:
        reads, out = self.problem.reads, self.problem.out
        renderer = cexpr.Renderer(reads, self.g.coordinates, ["sums[a][b][j]"], extents=out.shape)
        statements, value = renderer.render(self.problem.epilogue)
        where = offset(["n", "d", "h", "w", "m"], self.g.out_strides)
        return ["const int64_t d = 0, m = m0 + c0 + j;", *statements, cexpr.store(out, "out", where, value)]

    def main(self) -> list[str]:
        s, products = self.schedule, self.num_planes * self.plane
        body = [
            f"const int64_t tiles = chunk / {s.panel_chunks}, part = chunk % {s.panel_chunks};",
            *share("t", "tiles", self.num_tiles, s.tile_chunks),
            *share("p", "part", self.panels.count, s.panel_chunks),
            f"{self.type} *planes = scratch, *product = planes + {products}, *patch = product + {self.product_elements};",
            *loop("t", "t0", f"t0 + {self.block}", self.tile_in()),
        ]
        return self.kernel(body)

    def kernel(self, begin: list[str]) -> list[str]:
        """C: KERNEL, which does ``begin`` and then the panels [p0, p1)."""
        body = list(begin)
        for first, end, width, valid in self.panels.ranges():
            body += clipped("p", first, end, "p0", "p1", self.panel(width, valid))
        return block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)

    def position(self, of: str) -> list[str]:
        """C: image and first output of tile ``of``."""
        return [
            f"const int64_t n = {of} / {self.down * self.across}, h0 = {of} / {self.across} % {self.down} * {self.m};",
            f"const int64_t w0 = {of} % {self.across} * {self.m};",
        ]

    def tile_in(self) -> list[str]:
        """C: transforms the patch of tile t; a block that is not full repeats its last tile."""
        g, x = self.g, self.problem.x
        n, _, height, width, _ = g.x_strides
        target = f"planes + (t - t0) * {self.row}"
        lines = [
            "const int64_t from = t < t1 ? t : t1 - 1;",
            *self.position("from"),
            f"const {x.dtype.c} *x = (const {x.dtype.c} *)args[0] + n * {n};",
            f"const int64_t h = h0 * {self.step} - {g.pad[1]}, w = w0 * {self.step} - {g.pad[2]};",
        ]
        copied = [
            "gather(args, patch, x, h, w);",
            f"patch_in({target}, patch, {self.patch * self.channels}, {self.channels});",
        ]
        if not self.is_direct:
            return lines + copied
        inside = f"h >= 0 && h <= {g.size[1] - self.patch} && w >= 0 && w <= {g.size[2] - self.patch}"
        in_place = [f"patch_in({target}, x + h * {height} + w * {width}, {height}, {width});"]
        return [*lines, *block(f"if ({inside})", in_place), *block("else", copied)]

    def panel(self, width: int, valid: int) -> list[str]:
        """C: the products of panel p for every plane, then the outputs of every tile."""
        terms = self.num_planes * self.g.channels
        each = [
            f"const {self.type} *x = planes + e * {self.plane};",
            f"const {self.type} *panel = (const {self.type} *)args[1] + "
            f"p * {self.panels.width * terms} + e * {self.g.channels * width};",
            f"{self.type} *to = product + e * {self.block * width};",
            *self.products(width, valid),
        ]
        finish = f"patch_out_{valid}(args, product + (t - t0) * {width}, n, h0, w0, p * {self.panels.width});"
        return [*loop("e", 0, self.num_planes, each), *loop("t", "t0", "t1", [*self.position("t"), finish])]

    def products(self, width: int, valid: int) -> list[str]:
        """C: ``to``, the products of the chunk's tiles ``x`` with ``panel`` in one plane."""
        ahead = self.ahead(width)
        products = ahead.begin if ahead else []
        before = 0
        for rows, count in self.rows.kinds():
            where = self.rows.begin("r")
            pointers = "panel, ahead" if ahead else "panel"
            call = f"multiply_{rows}x{valid}(to + ({where}) * {width}, x + ({where}) * {self.row}, {pointers});"
            products += loop("r", before, before + count, [call, *([ahead.advance] if ahead else [])])
            before += count
        return products
