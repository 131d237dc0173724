"""A convolution of one tap and the depthwise one behind it, in C: the tiles of both, and KERNEL, which walks them.

What the first makes of a band of rows and a part of the channels lies in scratch, only those channels side by side. Both
kinds of tiles believe that a whole image of them were there: they are handed the address at which it would begin.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from redline.base.shapes import size
from redline.kernels import cexpr
from redline.kernels.conv import pointwise
from redline.kernels.ctext import block, clipped, share
from redline.kernels.depthwise.c import HEAD, DepthwiseKernel
from redline.kernels.depthwise.open import kind_of
from redline.kernels.expanded.problem import Problem
from redline.kernels.expanded.schedule import Schedule, held_channels, held_rows, is_legal
from redline.kernels.matmul.c import MatmulKernel, tile_name
from redline.kernels.problem import CpuTarget, KernelCode, Operand, nothing


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    """The kernel for ``problem``; ``schedule`` must be legal for it."""
    if not size(problem.second.out.shape):
        return nothing("expanded")
    assert is_legal(problem, schedule, target), f"{schedule} does not fit {problem}"
    kernel = ExpandedKernel(problem, schedule, target)
    text = kernel.text()
    return KernelCode("expanded", cexpr.prelude(text) + text, kernel.num_chunks, kernel.scratch_bytes, kernel.packings)


@dataclass(frozen=True)
class ExpandedKernel:
    problem: Problem
    schedule: Schedule
    target: CpuTarget

    @cached_property
    def held(self) -> Operand:
        """What lies between the two, as if all of it were there: pixels of one part's channels, one after the other."""
        whole, channels = self.problem.first.out, held_channels(self.problem, self.schedule, self.target)
        height, width = whole.shape[1:3]
        return replace(whole, strides=(height * width * channels, width * channels, channels, 1))

    @cached_property
    def first(self) -> MatmulKernel:
        product = pointwise.as_product(replace(self.problem.first, out=self.held))
        return MatmulKernel(product, self.schedule.product, self.target)

    @cached_property
    def second(self) -> DepthwiseKernel:
        return kind_of(self.schedule.taps)(replace(self.problem.second, x=self.held), self.schedule.taps, self.target)

    @property
    def packings(self) -> dict[int, pointwise.Packing]:
        return {1: pointwise.of_weights(self.first.packing(), self.problem.first), self.after: self.second.packing()}

    @property
    def after(self) -> int:
        """The number of the first operand that is the second's alone."""
        return len(self.problem.first.reads)

    @property
    def num_chunks(self) -> int:
        return self.second.g.batch * self.schedule.bands * self.schedule.parts

    @property
    def scratch_bytes(self) -> int:
        return max(held_rows(self.second.g, self.schedule.bands)) * self.held.strides[1] * self.held.dtype.size

    def text(self) -> str:
        lines = self.first.dot.types(self.target)
        for width, valid in self.first.panels.kinds():
            lines += self.first.tile(self.schedule.rows, width, valid)
        return "\n".join([*lines, *self.second.functions(), *self.main(), ""])

    def main(self) -> list[str]:
        g, s, held = self.second.g, self.schedule, self.held
        top, bottom = f"h_begin * {g.step[1]} - {g.pad[1]}", f"(h_end - 1) * {g.step[1]} + {g.span(1, 1) - g.pad[1]}"
        body = [
            f"const int64_t part = chunk % {s.parts}, band = chunk / {s.parts} % {s.bands}, n = chunk / {s.parts * s.bands};",
            *share("h_", "band", g.out_size[1], s.bands, ("begin", "end")),
            *share("p", "part", self.first.panels.count, s.parts),
            f"const int64_t y_begin = {top} > 0 ? {top} : 0;",
            f"const int64_t y_end = {bottom} < {g.size[1]} ? {bottom} : {g.size[1]};",
            f"const int64_t m_begin = (n * {g.size[1]} + y_begin) * {g.size[2]};",
            f"const int64_t m_end = m_begin + (y_end - y_begin) * {g.size[2]};",
            f"const int64_t before = m_begin * {held.strides[2]} + p0 * {self.first.panels.width};",
            f"{held.dtype.c} *held = ({held.dtype.c} *)scratch - before;",
            *self._operands(),
            *self._expand(),
            *self.second.walk("filter", "0"),
        ]
        return block(HEAD, body)

    def _operands(self) -> list[str]:
        """C: what both kinds of tiles are handed."""
        last, vectors = len(self.problem.reads), self.schedule.vectors
        all_vectors = -(-self.second.g.channels // self.second.lanes)
        own, others = (", ".join(f"args[{i}]" for i in range(*ends)) for ends in ((0, self.after), (self.after, last + 1)))
        return [
            f"void *const expand[] = {{{own}, held}}, *const filter[] = {{held, {others}}};",
            f"const {self.held.dtype.c} *a = args[0], *b = args[1], *taps = args[{self.after}];",
            f"const {self.held.dtype.c} *x = held + n * {self.held.strides[0]};",
            f"const int64_t v0 = p0 * {vectors}, v1 = p1 * {vectors} < {all_vectors} ? p1 * {vectors} : {all_vectors};",
        ]

    def _expand(self) -> list[str]:
        """C: everything that the band needs, a panel after the other."""
        m, lines = f"for (int64_t m = m_begin; m < m_end; m += {self.schedule.rows})", []
        for first, end, width, valid in self.first.panels.ranges():
            ahead = self.first.ahead(width)
            tiles = block(m, [self._place, *self._tile(width, valid)])
            lines += clipped("p", first, end, "p0", "p1", [self.first.panel(width), *(ahead.begin if ahead else []), *tiles])
        return lines

    @property
    def _place(self) -> str:
        """C: where tile ``m`` begins: early, where the last of a band would not be a whole one."""
        rows = self.schedule.rows
        return f"const int64_t m0 = m + {rows} < m_end ? m : m_end - {rows};"

    def _tile(self, width: int, valid: int) -> list[str]:
        """C: the tile of panel ``p`` that begins at ``m0``."""
        kernel, ahead = self.first, self.first.ahead(width)
        passed = f"panel, {ahead.PASSED}" if ahead else "panel"
        call = f"(expand, a + m0 * {kernel.g.x[-2]}, {passed}, 0, m0, p * {kernel.panels.width});"
        return [tile_name(self.schedule.rows, valid) + call, *([ahead.advance] if ahead else [])]
