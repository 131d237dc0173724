"""Resize: every output coordinate reads a few input coordinates along each axis, with weights.

``axis_taps`` says which and how much, for everything the standard allows: the modes nearest, linear and cubic, seven
ways to map coordinates, antialiasing, and regions of interest. All of it is known at build time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.base.shapes import Dim
from redline.ir import TensorType, Value, constant
from redline.ops.layout import is_channels_last
from redline.ops.registry import Op, define, make
from redline.ops.rules import HALF, cast, choice, ints, reshaped, scalar, wide

_ROI, _SCALES, _SIZES = 1, 2, 3
_TRANSFORMS = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
)  # fmt: skip


@dataclass(frozen=True)
class Taps:
    """One axis: output i is the sum over j of weights[i, j] * input[indices[i, j]], or the fill value where ``outside``."""

    axis: int
    indices: np.ndarray  # int64 [output, taps], within the axis
    weights: np.ndarray  # float64 [output, taps]
    outside: np.ndarray  # bool [output]

    @property
    def is_copy(self) -> bool:
        """Whether every output is one input as it is."""
        return self.indices.shape[1] == 1 and bool(np.all(self.weights == 1))


@dataclass(frozen=True)
class _Axis:
    """An axis being resized: its place, extents before and after, scale, and the region of interest."""

    axis: int
    size: int
    output: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def _axes(op: Op) -> list[int]:
    """The axes that roi, scales and sizes speak of, in that order, as axes of the data in its layout."""
    rank = len(op.type(0).shape)
    given = op.attr("axes")
    axes = [shapes.axis_index(int(a), rank, op.label) for a in given] if given is not None else list(range(rank))
    if not is_channels_last(op):
        return axes
    return [{0: 0, 1: rank - 1}.get(a, a - 1) for a in axes]


def _resized(op: Op) -> list[_Axis]:
    """The axes whose extent or region changes."""
    axes = _axes(op)
    given = op.const(_SIZES if op.has(_SIZES) else _SCALES).reshape(-1)
    if op.has(_SIZES) == op.has(_SCALES) or len(given) != len(axes):
        raise ModelError(op.label, f"Resize of {len(axes)} axes by {len(given)} numbers", "scales or sizes, one an axis")
    roi = _region(op, len(axes))
    if not op.has(_SIZES):
        found = [_scaled(op, axis, float(scale)) for axis, scale in zip(axes, given, strict=True)]
    else:
        found = _sized(op, axes, [int(size) for size in given])
    found = [_Axis(a.axis, a.size, a.output, a.scale, *r) for a, r in zip(found, roi, strict=True)]
    return [a for a in found if a.size != a.output or a.scale != 1 or (a.start, a.end) != (0.0, 1.0)]


def _region(op: Op, count: int) -> list[tuple[float, float]]:
    """Where on each axis the picture is cut out; all of it in every mode but tf_crop_and_resize."""
    if op.attr("coordinate_transformation_mode") != "tf_crop_and_resize":
        return [(0.0, 1.0)] * count
    roi = [float(v) for v in op.const(_ROI).reshape(-1)]
    if len(roi) != 2 * count:
        raise ModelError(op.label, f"a region of {len(roi)} numbers for {count} axes", "starts, then ends")
    return list(zip(roi[:count], roi[count:], strict=True))


def _extent(op: Op, axis: int) -> int:
    return shapes.static((op.type(0).shape[axis],), op.label)[0]


def _scaled(op: Op, axis: int, scale: float) -> _Axis:
    dim: Dim = op.type(0).shape[axis]
    if not scale > 0 or not math.isfinite(scale):
        raise ModelError(op.label, f"a scale of {scale} along axis {axis}", "allowed: above 0")
    if scale == 1 and not isinstance(dim, int):
        return _Axis(axis, 0, 0, 1.0)
    size = _extent(op, axis)
    return _Axis(axis, size, math.floor(size * scale), scale)


def _sized(op: Op, axes: list[int], sizes: list[int]) -> list[_Axis]:
    policy = choice(op, "keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller"))
    extents = [_extent(op, axis) for axis in axes]
    if any(size < 0 for size in sizes) or 0 in extents:
        raise ModelError(op.label, f"sizes {sizes} from {extents}", "allowed: from 0, of axes that are not empty")
    scales = [size / extent for size, extent in zip(sizes, extents, strict=True)]
    if policy != "stretch":
        common = min(scales) if policy == "not_larger" else max(scales)
        scales, sizes = [common] * len(axes), [math.floor(common * extent + 0.5) for extent in extents]
    return [_Axis(*item) for item in zip(axes, extents, sizes, scales, strict=True)]


def _origins(op: Op, axis: _Axis) -> np.ndarray:
    """The input coordinate that each output coordinate stands for."""
    mode = choice(op, "coordinate_transformation_mode", "half_pixel", _TRANSFORMS)
    x, last = np.arange(axis.output, dtype=np.float64), axis.size - 1
    length = axis.scale * axis.size  # before rounding down
    if mode == "align_corners":
        return np.zeros_like(x) if length == 1 else x * last / (length - 1)
    if mode == "asymmetric":
        return x / axis.scale
    if mode == "tf_crop_and_resize":
        span = (axis.end - axis.start) * last
        return axis.start * last + (np.full_like(x, span / 2) if length == 1 else x * span / (length - 1))
    if mode == "pytorch_half_pixel" and length == 1:
        return np.zeros_like(x)
    shift = axis.size / 2 * (1 - axis.output / length) if mode == "half_pixel_symmetric" else 0.0
    return shift + (x + 0.5) / axis.scale - 0.5


_ROUND: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _tent(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - distance, 0, None)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (Keys, 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _taps(op: Op, axis: _Axis) -> Taps:
    mode = choice(op, "mode", "nearest", ("nearest", "linear", "cubic"))
    origin = _origins(op, axis)
    outside = np.zeros(axis.output, bool)
    if op.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        outside = (origin < 0) | (origin > axis.size - 1)
    if mode == "nearest":
        rounded = _ROUND[choice(op, "nearest_mode", "round_prefer_floor", tuple(_ROUND))](origin)
        indices = np.clip(rounded, 0, axis.size - 1).astype(np.int64)[:, None]
        return Taps(axis.axis, indices, np.ones(indices.shape), outside)
    stretch = min(axis.scale, 1.0) if op.attr("antialias", 0) else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / stretch)
    places = np.floor(origin)[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(places - origin[:, None]) * stretch
    weights = _tent(distance) if mode == "linear" else _cubic(distance, float(op.attr("cubic_coeff_a", -0.75)))
    if op.attr("exclude_outside", 0):
        weights = np.where((places < 0) | (places > axis.size - 1), 0, weights)
    if op.attr("exclude_outside", 0) or stretch < 1:
        weights = weights / weights.sum(axis=1, keepdims=True)
    indices = np.clip(places, 0, axis.size - 1).astype(np.int64)
    used = (weights != 0).any(axis=0)
    used[0] |= not used.any()
    return Taps(axis.axis, indices[:, used], weights[:, used], outside)


def axis_taps(op: Op) -> tuple[Taps, ...]:
    """How each axis that a Resize node changes is read, in the layout of its data."""
    return tuple(_taps(op, axis) for axis in _resized(op))


def _infer(op: Op) -> list[TensorType]:
    shape = list(op.type(0).shape)
    for axis in _resized(op):
        if axis.size == 0:
            raise ModelError(op.label, f"Resize of the empty axis {axis.axis}")
        shape[axis.axis] = axis.output
    return [TensorType(op.type(0).dtype, tuple(shape))]


def _along(taps: Taps, rank: int) -> tuple[int, ...]:
    """The shape in which one weight an output coordinate broadcasts."""
    return (-1, *(1,) * (rank - 1 - taps.axis))


def _reference(op: Op, x: np.ndarray, *_: np.ndarray | None) -> np.ndarray:
    """Axis by axis, in float64; integers are rounded to nearest at the end, towards zero as casts go."""
    taps_of_axes = axis_taps(op)
    y = x if all(taps.is_copy for taps in taps_of_axes) else wide(x).astype(np.float64)
    for taps in taps_of_axes:
        parts = [np.take(y, taps.indices[:, j], axis=taps.axis) for j in range(taps.indices.shape[1])]
        if not taps.is_copy:
            weights = [taps.weights[:, j].reshape(_along(taps, x.ndim)) for j in range(len(parts))]
            parts = [sum(p * w for p, w in zip(parts, weights, strict=True))]
        y = parts[0]
        if taps.outside.any():
            fill = np.asarray(op.attr("extrapolation_value", 0.0)).astype(y.dtype)
            y = np.where(taps.outside.reshape(_along(taps, x.ndim)), fill, y)
    if x.dtype.kind in "iu" and y.dtype != x.dtype:
        info = np.iinfo(x.dtype)
        y = np.clip(y, info.min, info.max)
    return y


def _decompose(op: Op) -> Value:
    """A Gather a tap and axis, weighted and summed in float32."""
    x, taps_of_axes = op.value(0), axis_taps(op)
    is_copy = all(taps.is_copy for taps in taps_of_axes)
    y = x if is_copy else cast(x, x.dtype if x.dtype.is_float and x.dtype not in HALF else dtypes.float32)
    for taps in taps_of_axes:
        y = _interpolated(op, y, taps)
    if not is_copy and x.dtype.is_integer:
        info = np.iinfo(x.dtype.numpy)
        y = make("Clip", y, scalar(info.min, y.dtype), scalar(info.max, y.dtype))
    return cast(y, x.dtype)


def _repeats(taps: Taps) -> int:
    """How often each element comes where all come equally often, in order, as they are; else 0."""
    count, extent = len(taps.indices), int(taps.indices.max(initial=0)) + 1
    times = count // extent
    plain = taps.is_copy and not taps.outside.any() and count == times * extent
    return times if plain and np.array_equal(taps.indices[:, 0], np.arange(count) // max(times, 1)) else 0


def _repeated(x: Value, axis: int, times: int) -> Value:
    """Each element ``times`` times along the axis, in a form in which no index is read from memory."""
    shape = shapes.static(x.shape)
    before, extent, after = shape[:axis], shape[axis], shape[axis + 1 :]
    wide = make("Expand", reshaped(x, (*before, extent, 1, *after)), ints((*before, extent, times, *after)))
    return reshaped(wide, (*before, extent * times, *after))


def _interpolated(op: Op, x: Value, taps: Taps) -> Value:
    times = _repeats(taps)
    if times and shapes.static((x.shape[taps.axis],))[0] * times == len(taps.indices):
        return _repeated(x, taps.axis, times)
    place = _along(taps, len(x.shape))
    parts = [make("Gather", x, constant(taps.indices[:, j]), axis=taps.axis) for j in range(taps.indices.shape[1])]
    if not taps.is_copy:
        weights = [constant(taps.weights[:, j].reshape(place).astype(x.dtype.numpy)) for j in range(len(parts))]
        parts = [make("Mul", part, weight) for part, weight in zip(parts, weights, strict=True)]
    y = parts[0] if len(parts) == 1 else make("Sum", *parts)
    if not taps.outside.any():
        return y
    return make("Where", constant(taps.outside.reshape(place)), scalar(op.attr("extrapolation_value", 0.0), x.dtype), y)


define("Resize", _infer, _reference, _decompose, static=(_ROI, _SCALES, _SIZES))
