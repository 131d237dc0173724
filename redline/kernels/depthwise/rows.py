"""Tiles of several rows of outputs: what two rows of taps have in common is loaded once, and there are half as many calls.

Rows that are left over at the end of a band are computed one by one.
"""

from dataclasses import dataclass, replace

from redline.kernels.ctext import block
from redline.kernels.depthwise.c import Border, DepthwiseKernel


@dataclass(frozen=True)
class RowsKernel(DepthwiseKernel):
    def functions(self) -> list[str]:
        lines = super().functions()
        for number, border in enumerate(self.borders):
            lines += self.tile(f"rows{number}", replace(border, rows=self.schedule.rows))
        return lines

    def walk(self, args: str, depth: str) -> list[str]:
        rows = self.schedule.rows
        whole = block(f"for (; h + {rows} <= h_end; h += {rows})", self.row(args, depth, "rows"))
        return ["int64_t h = h_begin;", *whole, *block("for (; h < h_end; ++h)", self.row(args, depth))]

    def products(self, border: Border, width: int) -> list[str]:
        """C: a row of the input after the other, each times all the rows of taps that meet it."""
        if border.rows == 1:
            return super().products(border, width)
        g, height_step, lines = self.g, self.x_strides[1], []
        for place in range(g.span(1, border.rows)):
            meets = [(r, (place - r * g.step[1]) // g.dilation[1]) for r in range(border.rows) if self._meets(place, r)]
            if meets:
                position = f"const int64_t y = h * {g.step[1]} + {place - (0 if self.stage else g.pad[1])};"
                row = [f"const {self.x_type.c} *row = x + y * {height_step} + m0;", *self._row(border, meets, width)]
                inside = block(f"if (y >= 0 && y < {g.size[1]})", row) if g.leaves(1) and not self.stage else row
                lines += block("", [position, *inside])
        return lines

    def _meets(self, place: int, row: int) -> bool:
        """Whether a row of taps meets input row ``place`` for output row ``row`` of the tile."""
        distance = place - row * self.g.step[1]
        return distance >= 0 and distance % self.g.dilation[1] == 0 and distance // self.g.dilation[1] < self.g.taps[1]

    def _row(self, border: Border, meets: list[tuple[int, int]], width: int) -> list[str]:
        """C: the products of ``row`` with the rows of taps in ``meets``: (output row of the tile, row of taps)."""
        vec, pairs = f"vec{width}", self.reached(border)
        columns = sorted({tap for found in pairs.values() for _, tap in found})
        lines = []
        for _, kh in meets:
            for tap in columns:
                where = f"taps + {(kh * self.g.taps[2] + tap) * self.g.channels} + m0"
                lines.append(f"const {vec} t{kh}_{tap} = *(const {vec} *)({where});")
        for place, found in pairs.items():
            sums = [f"acc[{r * border.columns + column}] += value * t{kh}_{tap};" for r, kh in meets for column, tap in found]
            lines.append(f"{{ const {vec} value = {self.load(f'row + {place}', width)}; {' '.join(sums)} }}")
        return lines
