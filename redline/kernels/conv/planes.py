"""The input of a band of outputs, copied into scratch as flat.py reads it: [plane][row][pitch][pixel].

A plane holds the pixels whose padded coordinates leave the same remainders when divided by the strides; row r of it is what
output row r meets at the first tap of that remainder.
"""

from dataclasses import dataclass
from functools import cached_property

from redline.kernels import amx, cexpr
from redline.kernels.conv.geometry import Geometry
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.staging import CACHE_LINE, copied, copied_pixel
from redline.kernels.ctext import block, loop
from redline.kernels.dot import Dot

ALIAS_BYTES = 1024  # pixels this far apart compete for few sets of the first-level cache


@dataclass(frozen=True)
class Planes:
    """Room for what ``rows`` rows of outputs read."""

    g: Geometry
    rows: int
    problem: Problem
    dot: Dot

    @cached_property
    def remainders(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Those that some tap meets, along height and width."""
        down, right = (tuple(sorted({tap % self.g.step[axis] for tap in range(self.g.taps[axis])})) for axis in (1, 2))
        return down, right

    @property
    def pixel(self) -> int:
        """Elements from one pixel to the next."""
        found = self.dot.steps(self.g.channels) * self.dot.group
        return found + (CACHE_LINE // self.dot.x.size if found * self.dot.x.size % ALIAS_BYTES == 0 else 0)

    @property
    def shared(self) -> int:
        """Columns of padding that a row's end and the next one's begin have in common."""
        g = self.g
        return min(g.pad[2], max(0, g.span(2, g.out_size[2]) - g.pad[2] - g.size[2])) if g.step[2] == 1 else 0

    @property
    def pitch(self) -> int:
        """Positions from one row to the next."""
        return self.g.out_size[2] + (self.g.taps[2] - 1) // self.g.step[2] - self.shared

    @property
    def plane_rows(self) -> int:
        return self.rows + (self.g.taps[1] - 1) // self.g.step[1]

    @property
    def positions(self) -> int:
        """From the first output to the last."""
        return (self.rows - 1) * self.pitch + self.g.out_size[2]

    @property
    def num_bytes(self) -> int:
        """With what the last tile reads beyond the last output."""
        down, right = self.remainders
        pixels = self.plane_rows * self.pitch * len(down) * len(right) + self.shared + amx.ROWS
        return -(-pixels * self.pixel * self.dot.x.size // CACHE_LINE) * CACHE_LINE

    def place(self, down: int, right: int) -> int:
        """The element that position 0 meets at this tap."""
        (_, high, wide), (rows, columns) = self.g.step, self.remainders
        plane = rows.index(down % high) * len(columns) + columns.index(right % wide)
        return (plane * self.plane_rows * self.pitch + down // high * self.pitch + right // wide) * self.pixel

    def copy(self) -> list[str]:
        """C: fills ``staged`` for the output rows [h_begin, h_end) from ``x``, the image."""
        g, kind = self.g, self.dot.x.c
        lines = [f"{kind} *restrict staged = scratch;"]
        for down in self.remainders[0]:
            last = f"h_end - h_begin + {(g.taps[1] - 1 - down) // g.step[1]}"
            body = [
                f"const int64_t y = (h_begin + r) * {g.step[1]} + {down - g.pad[1]};",
                f"{kind} *restrict row = staged + {self.place(down, self.remainders[1][0])} + r * {self.pitch * self.pixel};",
            ]
            zero = [line for right in self.remainders[1] for line in self._fill(self._plane(right), 0, self.pitch)]
            body += block(f"if (y < 0 || y >= {g.size[1]})", [*zero, "continue;"]) if g.leaves(1) else []
            for right in self.remainders[1]:
                body += self._row(right)
            lines += loop("r", 0, last, body)
        if self.shared:
            end = f"(h_end - h_begin + {g.taps[1] - 1}) * {self.pitch}"
            lines += self._fill("staged", end, f"{end} + {self.shared}")
        return lines

    def _plane(self, right: int) -> str:
        """C: the row of ``row`` that holds the columns of this remainder."""
        return f"(row + {self.place(0, right) - self.place(0, self.remainders[1][0])})"

    def _fill(self, to: str, begin: int | str, end: int | str) -> list[str]:
        pad = cexpr.to_storage(self.dot.x, cexpr.literal(self.problem.pad_value + self.dot.offset, self.dot.x))
        head = f"for (int64_t i = ({begin}) * {self.pixel}; i < ({end}) * {self.pixel}; ++i)"
        return [f"{head} {to}[i] = {pad};"] if begin != end else []

    def _row(self, right: int) -> list[str]:
        """C: the pixels of one row that leave the remainder ``right``, and the padding around them."""
        g, to = self.g, self._plane(right)
        step = g.step[2]
        begin = min(self.pitch, max(0, -(-(g.pad[2] - right) // step)))
        end = max(begin, min(self.pitch, -(-(g.size[2] + g.pad[2] - right) // step)))
        _, _, high, wide, channel = g.x_strides
        first = begin * step + right - g.pad[2]
        lines = [*self._fill(to, 0, begin), *self._fill(to, end, self.pitch)]
        source = f"const {self.problem.x.dtype.c} *restrict from = x + y * {high} + {first * wide};"
        if step == channel == 1 and wide == g.channels == self.pixel:
            body = copied(
                "i", (end - begin) * wide, [f"{to}[{begin * self.pixel} + i]"], "from[i]", self.problem.x.dtype, self.dot
            )
        else:
            place, element = f"{to}[({begin} + i) * {self.pixel} + c]", f"from[i * {step * wide} + c * {channel}]"
            whole = self.dot.steps(g.channels) * self.dot.group
            pixel = copied_pixel(g.channels, whole, [place], element, self.problem.x.dtype, self.dot)
            body = loop("i", 0, end - begin, pixel)
        return [*lines, *(block("", [source, *body]) if end > begin else [])]
