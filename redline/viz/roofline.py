"""The roofline (Williams, Waterman and Patterson, 2009): what each kind of kernel reaches, under the machine's ceilings."""

import math
from collections.abc import Mapping, Sequence

from redline.base.ceilings import Ceilings
from redline.viz.markup import Markup, svg, tag, text
from redline.viz.work import Kind

WIDTH, HEIGHT, LEFT, BOTTOM = 1200.0, 520.0, 70.0, 46.0
NARROWEST = (0.1, 100.0)  # operations a byte: the least range that is drawn
DEPTH = 2e3  # the top of the picture over its bottom


def roofline(kinds: Sequence[Kind], ceilings: Ceilings, colours: Mapping[str, str]) -> Markup:
    """Operations a second over operations a byte, both logarithmic; a disc's area is the share of the time."""
    points = [(kind, kind.record.flops / kind.record.num_bytes) for kind in kinds if _drawn(kind)]
    at = [x for _, x in points]
    axes = _Axes(min(NARROWEST[0], *at, 1.0), max(NARROWEST[1], *at, 1.0) * 2, 2 * max(ceilings.operations.values()))
    whole = sum(kind.seconds for kind in kinds) or 1.0
    discs = [_disc(axes, kind, x, kind.seconds / whole, colours) for kind, x in points]
    return svg(WIDTH, HEIGHT, *axes.grid(), *_roofs(axes, ceilings), *discs, label="roofline of the kernels")


def _drawn(kind: Kind) -> bool:
    return kind.record.flops > 0 and kind.record.num_bytes > 0 and kind.seconds > 0


class _Axes:
    """Where a point lies: ``x`` operations a byte from ``low`` to ``high``, ``y`` operations a second up to ``top``."""

    def __init__(self, low: float, high: float, top: float) -> None:
        self.low, self.high, self.top, self.least = low, high, top, top / DEPTH

    def x(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return LEFT + (WIDTH - LEFT) * min(1.0, max(0.0, part))

    def y(self, value: float) -> float:
        part = math.log(value / self.least) / math.log(self.top / self.least)
        return (HEIGHT - BOTTOM) * (1 - min(1.0, max(0.0, part)))

    def grid(self) -> list[Markup]:
        lines = [self._line(self.x(v), 0, self.x(v), HEIGHT - BOTTOM, "grid") for v in _decades(self.low, self.high)]
        lines += [self._line(LEFT, self.y(v), WIDTH, self.y(v), "grid") for v in _decades(self.least, self.top)]
        lines += [_label(self.x(v), HEIGHT - BOTTOM + 18, f"{v:g}", "middle") for v in _decades(self.low, self.high)]
        lines += [_label(LEFT - 8, self.y(v) + 4, f"{v / 1e9:g}", "end") for v in _decades(self.least, self.top)]
        lines.append(_label(WIDTH, HEIGHT - 6, "operations a byte", "end"))
        lines.append(_label(LEFT + 6, 14, "GFLOP/s", "start"))
        return lines

    def roof(self, peak: float, bandwidth: float, name: str) -> list[Markup]:
        """The ceiling of ``peak`` with the slope of ``bandwidth`` in front of it."""
        knee = min(self.high, max(self.low, peak / bandwidth))
        start = min(peak, self.low * bandwidth)
        slope = self._line(self.x(self.low), self.y(start), self.x(knee), self.y(min(peak, knee * bandwidth)), "roof")
        flat = self._line(self.x(knee), self.y(peak), WIDTH, self.y(peak), "roof")
        return [slope, flat, _label(WIDTH - 4, self.y(peak) - 5, name, "end")]

    @staticmethod
    def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
        return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _roofs(axes: _Axes, ceilings: Ceilings) -> list[Markup]:
    lines: list[Markup] = []
    for name, peak in ceilings.operations.items():
        lines += axes.roof(peak, ceilings.cache, f"{name} {peak / 1e9:.0f}")
    lowest = min(ceilings.operations.values())
    knee = axes.x(min(axes.high, lowest / ceilings.memory))
    return [*lines, *axes.roof(lowest, ceilings.memory, "")[:1], _label(knee, axes.y(lowest) + 16, "memory", "start")]


def _disc(axes: _Axes, kind: Kind, x: float, share: float, colours: Mapping[str, str]) -> Markup:
    record, rate = kind.record, kind.record.flops * kind.count / kind.seconds
    said = f"{record.family} x {kind.count}: {share:.1%} of the time, {rate / 1e9:.1f} GFLOP/s\n{record.schedule}"
    radius = 3 + 60 * math.sqrt(share / math.pi)
    return tag("circle", tag("title", text(said)), cx=axes.x(x), cy=axes.y(rate), r=radius, fill=colours[record.family])


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _label(x: float, y: float, words: str, anchor: str) -> Markup:
    return tag("text", text(words), x=x, y=y, text_anchor=anchor)
