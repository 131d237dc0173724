"""GridSample and AffineGrid: pictures read at computed places."""

import itertools
import math
from dataclasses import dataclass
from functools import reduce

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.base.shapes import StaticShape
from redline.ir import TensorType, Value, constant
from redline.ops.by_parts import by_parts
from redline.ops.registry import Op, define, make
from redline.ops.rules import HALF, cast, choice, ints, reshaped, scalar, transposed

_CUBIC_A = -0.75


def _infer(op: Op) -> list[TensorType]:
    x, grid = op.type(0).shape, op.type(1).shape
    if len(x) < 3 or len(grid) != len(x) or grid[-1] != len(x) - 2 or grid[0] != x[0]:
        seen = f"data {shapes.text(x)}, grid {shapes.text(grid)}"
        raise ModelError(op.label, seen, "allowed: [N, C, D1..Dr] and [N, out1..outr, r]")
    choice(op, "mode", "linear", ("linear", "nearest", "cubic"))
    choice(op, "padding_mode", "zeros", ("zeros", "border", "reflection"))
    return [TensorType(op.type(0).dtype, (x[0], x[1], *grid[1:-1]))]


@dataclass(frozen=True)
class _Axis:
    """Coordinates along one spatial axis of ``size`` elements, and how those outside it are treated."""

    size: int
    padding: str
    is_aligned: bool

    @property
    def border(self) -> tuple[float, float]:
        return (0.0, self.size - 1.0) if self.is_aligned else (-0.5, self.size - 0.5)

    def place(self, normal: Value) -> Value:
        """-1..1 as a coordinate in elements."""
        factor = (self.size - 1) / 2 if self.is_aligned else self.size / 2
        shift = factor if self.is_aligned else factor - 0.5
        return _plus(_times(normal, factor), shift)

    def settle(self, at: Value) -> Value:
        """Coordinates brought inside as the padding mode says; zeros leaves them."""
        if self.padding == "border":
            return make("Clip", at, scalar(0, at.dtype), scalar(self.size - 1, at.dtype))
        return self._reflected(at) if self.padding == "reflection" else at

    def _reflected(self, at: Value) -> Value:
        """Folded at the borders: a triangle wave of the distance from the lower one."""
        low, high = self.border
        span = high - low
        if span <= 0:
            return _times(at, 0.0)
        distance = make("Abs", _plus(at, -low))
        around = make("Sub", distance, _times(make("Floor", _times(distance, 1 / (2 * span))), 2 * span))
        folded = make("Sub", scalar(span, at.dtype), make("Abs", _plus(around, -span)))
        return _plus(folded, low)

    def tap(self, at: Value) -> tuple[Value, Value | None]:
        """The index that whole coordinate ``at`` reads, and where it lies inside (None: everywhere)."""
        inside = None
        if self.padding == "zeros":
            low = make("GreaterOrEqual", at, scalar(0, at.dtype))
            inside = make("And", low, make("LessOrEqual", at, scalar(self.size - 1, at.dtype)))
        held = make("Clip", self.settle(at), scalar(0, at.dtype), scalar(self.size - 1, at.dtype))
        return cast(held, dtypes.int64), inside

    def taps(self, at: Value, mode: str) -> list[tuple[Value, Value | None, Value | None]]:
        """Index, inside and weight of every element that a read at ``at`` takes in."""
        if mode == "nearest":
            return [(*self.tap(make("Round", at)), None)]
        at = self.settle(at) if mode == "linear" else at  # PyTorch brings inside what cubic reads, not where it stands
        base = make("Floor", at)
        rest = make("Sub", at, base)
        offsets = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
        weight = _tent if mode == "linear" else _cubic
        return [(*self.tap(_plus(base, k)), weight(make("Abs", _plus(rest, -k)), k)) for k in offsets]


def _plus(value: Value, number: float) -> Value:
    return value if number == 0 else make("Add", value, scalar(number, value.dtype))


def _times(value: Value, number: float) -> Value:
    return make("Mul", value, scalar(number, value.dtype))


def _tent(distance: Value, offset: int) -> Value:
    return make("Sub", scalar(1, distance.dtype), distance)


def _cubic(distance: Value, offset: int) -> Value:
    """The cubic convolution kernel, near (offsets 0 and 1) or far."""
    a = _CUBIC_A
    factors = (a + 2, -(a + 3), 0.0, 1.0) if offset in (0, 1) else (a, -5 * a, 8 * a, -4 * a)
    return reduce(
        lambda total, factor: _plus(make("Mul", total, distance), factor), factors[1:], _constant(distance, factors[0])
    )


def _constant(like: Value, number: float) -> Value:
    return scalar(number, like.dtype)


def _decompose(op: Op) -> Value:
    """Every combination of taps along the axes: one gather from the flattened picture, weighted and summed."""
    x, grid = op.value(0), op.value(1)
    work = dtypes.float32 if x.dtype in HALF or grid.dtype in HALF else grid.dtype
    size = shapes.static(x.shape[2:], op.label)
    rank, mode = len(size), choice(op, "mode", "linear", ("linear", "nearest", "cubic"))
    axes = [_Axis(n, op.attr("padding_mode", "zeros"), bool(op.attr("align_corners", 0))) for n in size]
    per_axis = []
    for axis, item in enumerate(axes):  # the grid's last axis counts from the innermost
        column = rank - 1 - axis
        part = make("Slice", cast(grid, work), ints([column]), ints([column + 1]), ints([-1]))
        per_axis.append(item.taps(item.place(make("Squeeze", part, ints([-1]))), mode))
    picture = x if mode == "nearest" else cast(x, work)
    parts = [_read(picture, size, taps) for taps in itertools.product(*per_axis)]
    return cast(parts[0] if len(parts) == 1 else make("Sum", *parts), x.dtype)


def _read(x: Value, size: StaticShape, taps: tuple[tuple[Value, Value | None, Value | None], ...]) -> Value:
    """x at one tap an axis, [N, C, out...]: 0 outside, times the weights."""
    batch, channels = shapes.static(x.shape[:2])
    index = reduce(lambda total, item: make("Add", make("Mul", total, scalar(item[1], dtypes.int64)), item[0]),
                   zip((t[0] for t in taps[1:]), size[1:], strict=True), taps[0][0])  # fmt: skip
    out = shapes.static(index.shape[1:])
    flat = make("Expand", reshaped(index, (batch, 1, math.prod(out))), ints([batch, channels, math.prod(out)]))
    read = make("GatherElements", reshaped(x, (batch, channels, math.prod(size))), flat, axis=2)
    read = reshaped(read, (batch, channels, *out))
    inside = [make("Unsqueeze", t[1], ints([1])) for t in taps if t[1] is not None]
    if inside:
        read = make("Where", reduce(lambda a, b: make("And", a, b), inside), read, scalar(0, x.dtype))
    weights = [make("Unsqueeze", t[2], ints([1])) for t in taps if t[2] is not None]
    return make("Mul", read, reduce(lambda a, b: make("Mul", a, b), weights)) if weights else read


# --- AffineGrid: theta [N, r, r + 1], size [N, C, D1..Dr]


def _grid_size(op: Op) -> StaticShape:
    theta, size = op.type(0).shape, op.ints(1)
    rank = len(size) - 2
    if rank not in (2, 3) or theta[1:] != (rank, rank + 1) or any(n < 1 for n in size):
        seen = f"theta {shapes.text(theta)} for a grid of {shapes.text(size)}"
        raise ModelError(op.label, seen, "allowed: [N, 2, 3] for [N, C, H, W], [N, 3, 4] for [N, C, D, H, W]")
    return size[2:]


def _infer_affine(op: Op) -> list[TensorType]:
    size = _grid_size(op)
    return [TensorType(op.type(0).dtype, (op.type(0).shape[0], *size, len(size)))]


def _decompose_affine(op: Op) -> Value:
    """The grid of homogeneous coordinates, a constant, times theta transposed."""
    size, theta = _grid_size(op), op.value(0)
    lines = [np.linspace(-1, 1, n) if op.attr("align_corners", 0) else (2 * np.arange(n) + 1) / n - 1 for n in size]
    planes = np.meshgrid(*lines, indexing="ij")[::-1]
    points = np.stack([*planes, np.ones(size)], axis=-1).reshape(-1, len(size) + 1)
    y = make("MatMul", constant(points.astype(theta.dtype.numpy)), transposed(theta, (0, 2, 1)))
    return reshaped(y, (theta.shape[0], *size, len(size)))


define("GridSample", _infer, by_parts(_decompose), _decompose)
define("AffineGrid", _infer_affine, by_parts(_decompose_affine), _decompose_affine, static=(1,))
