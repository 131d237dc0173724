"""The input rows of a chunk, copied into scratch with their padding: [depth taps][rows][columns][channels].

Padding costs no test in the inner loop then, and elements are converted to the type of the sums once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redline.base.dtypes import DType
from redline.base.shapes import StaticShape
from redline.kernels import cexpr, tile
from redline.kernels.conv.geometry import Geometry
from redline.kernels.conv.problem import Problem
from redline.kernels.ctext import block, loop, vectorized
from redline.kernels.dot import Dot

ALIAS_BYTES = 2048  # pixels this far apart compete for few sets of the first-level cache
CACHE_LINE = 64


@dataclass(frozen=True)
class Stage:
    """Room for ``rows`` input rows of ``columns`` pixels, ``pixel`` elements apart."""

    g: Geometry
    rows: int
    columns: int
    pixel: int
    source: DType
    dot: Dot
    pad: str  # C: what stands outside the image, as it is staged
    is_folded: bool  # pixels lie side by side, and groups reach over them
    tail: int  # elements that the last group may read beyond the last pixel

    @staticmethod
    def of(g: Geometry, out_rows: int, problem: Problem, dot: Dot, is_folded: bool = False) -> "Stage":
        """The stage of a chunk of at most ``out_rows`` output rows."""
        tail = dot.steps(g.folded().channels) * dot.group - g.folded().channels if is_folded else 0
        pixel = g.channels if is_folded else dot.steps(g.channels) * dot.group
        aliases = (pixel * g.step[2] * dot.x.size) % ALIAS_BYTES == 0 and not is_folded
        pixel += CACHE_LINE // dot.x.size if aliases else 0
        pad = cexpr.to_storage(dot.x, cexpr.literal(problem.pad_value + dot.offset, dot.x))
        return Stage(g, g.span(1, out_rows), g.span(2, g.out_size[2]), pixel, problem.x.dtype, dot, pad, is_folded, tail)

    @property
    def strides(self) -> StaticShape:
        """(depth tap, height, width, channel)."""
        row = self.columns * self.pixel
        return (self.rows * row, row, self.pixel, 1)

    @property
    def num_bytes(self) -> int:
        """A multiple of a cache line."""
        return self.part * self.dot.parts * self.dot.x.size

    @property
    def part(self) -> int:
        """Elements of one part of what is staged (Dot.parts), whole cache lines."""
        per_line = CACHE_LINE // self.dot.x.size
        return -(-(self.elements + self.tail) // per_line) * per_line

    @property
    def elements(self) -> int:
        return self.g.taps[0] * self.strides[0]

    def copy(self) -> list[str]:
        """C: fills ``staged`` for the output rows [h_begin, h_end) of depth d from ``x``, the image."""
        g, type_name = self.g, self.dot.x.c
        depth_stride, row_stride, _, _ = self.strides
        body = [
            f"const int64_t h = h_begin * {g.step[1]} - {g.pad[1]} + r;",
            f"{type_name} *restrict to = staged + q * {depth_stride} + r * {row_stride};",
        ]
        body.insert(0, f"const int64_t z = d * {g.step[0]} - {g.pad[0]} + q * {g.dilation[0]};")
        outside = [f"{name} < 0 || {name} >= {g.size[axis]}" for axis, name in ((0, "z"), (1, "h")) if g.leaves(axis)]
        body += block(f"if ({' || '.join(outside)})", [*self._fill(0, row_stride), "continue;"]) if outside else []
        body += self._row()
        last = f"(h_end - h_begin - 1) * {g.step[1]} + {(g.taps[1] - 1) * g.dilation[1] + 1}"
        rows = loop("r", 0, last, body)
        ends = [f"{self._filled(last)} + {part * self.part}" for part in range(self.dot.parts)] if self.tail else []
        tail = [f"for (int64_t i = 0; i < {self.tail}; ++i) {{ staged[{end} + i] = 0; }}" for end in ends]
        return [f"{type_name} *restrict staged = scratch;", *loop("q", 0, g.taps[0], rows), *tail]

    def _filled(self, rows: str) -> str:
        """C: the first element after the last row of the last slice."""
        depth_stride, row_stride, _, _ = self.strides
        return f"{(self.g.taps[0] - 1) * depth_stride} + ({rows}) * {row_stride}"

    def _row(self) -> list[str]:
        """C: one row: zeros, pixels, zeros."""
        g = self.g
        _, depth, height, width, channel = g.x_strides
        left = min(g.pad[2], self.columns)
        count = max(0, min(g.size[2], self.columns - left))
        right = self.columns - left - count
        lines = [f"const {self.source.c} *restrict from = x + z * {depth} + h * {height};"]
        lines += self._fill(0, left * self.pixel) if left else []
        if width == g.channels == self.pixel and channel == 1:
            lines += self._copy("i", count * width, f"{left * self.pixel} + i", "from[i]")
        else:
            lines += loop("i", 0, count, self._pixel(f"{left * self.pixel} + i * {self.pixel} + c", width, channel))
        return lines + (self._fill((left + count) * self.pixel, self.columns * self.pixel) if right else [])

    def _pixel(self, place: str, width: int, channel: int) -> list[str]:
        """C: pixel i of a row."""
        end = 0 if self.is_folded else self.dot.steps(self.g.channels) * self.dot.group
        element = f"from[i * {width} + c * {channel}]"
        return copied_pixel(self.g.channels, end, self._places(place), element, self.source, self.dot)

    def _copy(self, variable: str, count: int, place: str, element: str) -> list[str]:
        """C: ``count`` elements of the image, converted."""
        return copied(variable, count, self._places(place), element, self.source, self.dot)

    def _places(self, place: str) -> list[str]:
        """C: where the parts of the element at ``place`` go."""
        return [f"to[{place}]", *(f"to[{part * self.part} + {place}]" for part in range(1, self.dot.parts))]

    def _fill(self, begin: int, end: int) -> list[str]:
        """C: what stands outside the image; there is no rest of it."""
        first, *rests = self._places("i")
        text = " ".join([f"{first} = {self.pad};", *(f"{rest} = 0;" for rest in rests)])
        return [f"for (int64_t i = {begin}; i < {end}; ++i) {{ {text} }}"]


def copied(variable: str, count: int, places: Sequence[str], element: str, source: DType, dot: Dot) -> list[str]:
    """C: ``count`` elements of the image, converted, to where their parts go."""
    body = tile.staged(places, element, source, dot.x, dot.offset)
    if dot.parts > 1:
        return vectorized(variable, 0, count, body)
    return [f"for (int64_t {variable} = 0; {variable} < {count}; ++{variable}) {body[0]}"]


def copied_pixel(channels: int, end: int, places: Sequence[str], element: str, source: DType, dot: Dot) -> list[str]:
    """C: the channels c of a pixel; those up to ``end``, which fill up the last group, meet weights of zero."""
    lines = copied("c", channels, places, element, source, dot)
    if end > channels:
        text = " ".join(f"{place} = {dot.offset};" for place in places)
        lines.append(f"for (int64_t c = {channels}; c < {end}; ++c) {{ {text} }}")
    return lines
