"""The form in which a convolution reaches the C renderer: three spatial axes (depth, height, width), the missing ones of
extent 1, and one group at a time."""

from dataclasses import dataclass, replace

from redline.base.shapes import StaticShape
from redline.kernels.conv.problem import Problem
from redline.kernels.dot import Dot
from redline.kernels.problem import CpuTarget, Operand
from redline.kernels.tile import Loop, Panels, lanes

AXES = ("d", "h", "w")


@dataclass(frozen=True)
class Geometry:
    """Extents and strides are over (depth, height, width); ``x_strides`` and ``out_strides`` over (n, d, h, w, channel)."""

    batch: int
    groups: int
    channels: int  # of one group
    filters: int  # of one group
    size: StaticShape
    out_size: StaticShape
    taps: StaticShape
    step: StaticShape
    dilation: StaticShape
    pad: StaticShape  # the begins
    x_strides: StaticShape
    out_strides: StaticShape
    coordinates: tuple[str, ...]  # C texts of the coordinates of out, in the variables n, d, h, w, m

    @property
    def reaches_outside(self) -> bool:
        """Whether some output reads padding."""
        return any(self.leaves(axis) for axis in range(3))

    def leaves(self, axis: int) -> bool:
        """Whether some output reads padding along ``axis``."""
        return self.pad[axis] > 0 or self.span(axis, self.out_size[axis]) - self.pad[axis] > self.size[axis]

    def span(self, axis: int, outputs: int) -> int:
        """Input positions from the first to the last that ``outputs`` neighbours along ``axis`` read."""
        return (outputs - 1) * self.step[axis] + (self.taps[axis] - 1) * self.dilation[axis] + 1

    def folded(self) -> "Geometry":
        """The same sums with the taps of a row and their channels as one axis of channels, which lie side by side in x."""
        return replace(self, channels=self.taps[2] * self.channels, taps=(*self.taps[:2], 1))

    def num_blocks(self, outputs: int) -> int:
        """Blocks of ``outputs`` x ``outputs`` that cover the images."""
        return self.batch * -(-self.out_size[1] // outputs) * -(-self.out_size[2] // outputs)

    def panels(self, vectors: int, problem: Problem, target: CpuTarget) -> Panels:
        width = lanes(problem.acc, target)
        return Panels(self.filters, vectors * width, width)


def of(problem: Problem) -> Geometry:
    missing = 3 - problem.rank
    whole = lambda values, fill: (fill,) * missing + tuple(values)  # noqa: E731
    return Geometry(
        problem.x.shape[0], problem.groups, problem.w.shape[1], problem.w.shape[0] // problem.groups,
        whole(problem.x.shape[1:-1], 1), whole(problem.out.shape[1:-1], 1), whole(problem.w.shape[2:], 1),
        whole(problem.strides, 1), whole(problem.dilations, 1), whole(problem.pads[: problem.rank], 0),
        _padded(problem.x, missing), _padded(problem.out, missing), ("n", *AXES[missing:], "m"),
    )  # fmt: skip


def _padded(operand: Operand, missing: int) -> StaticShape:
    return (operand.strides[0],) + (0,) * missing + operand.strides[1:]


@dataclass(frozen=True)
class Term:
    """One axis of the inner sum: ``name`` is d, h, w (taps) or c (channels)."""

    name: str
    extent: int
    x_step: int


def terms(g: Geometry, tap_steps: StaticShape, channel_step: int, dot: Dot) -> tuple[Term, ...]:
    """The axes of the inner sum in the order of the memory of x, the farthest step first; also the order of packed weights.

    ``tap_steps`` are the elements of x from one tap to the next; ``dot`` sums groups of channels at once.
    """
    taps = [Term(name, g.taps[i], tap_steps[i]) for i, name in enumerate(AXES)]
    found = [term for term in (*taps, Term("c", dot.steps(g.channels), channel_step * dot.group)) if term.extent > 1]
    return tuple(sorted(found, key=lambda term: -term.x_step))


def loops(found: tuple[Term, ...], width: int) -> list[Loop]:
    """The loop nest of the inner product over packed weights: neighbours that step evenly become one loop."""
    merged: list[Loop] = []
    below = width
    for term in reversed(found):
        if merged and term.x_step == merged[0].extent * merged[0].x_step:
            merged[0] = Loop(merged[0].extent * term.extent, merged[0].x_step, merged[0].w_step)
        else:
            merged.insert(0, Loop(term.extent, term.x_step, below))
        below *= term.extent
    return merged
