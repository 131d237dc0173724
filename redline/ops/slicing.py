"""Operators that take or add boxes: Slice, Split, Pad, CenterCropPad."""

from dataclasses import dataclass

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.base.shapes import Dim
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import choice, common_dtype, ints


@dataclass(frozen=True)
class Span:
    """``count`` elements of an axis from ``start`` on, ``step`` apart (negative: backwards)."""

    start: int
    count: Dim
    step: int


def span(extent: int, start: int, end: int, step: int) -> Span:
    """What start:end:step selects, both ends counted from the back where negative and clamped to the axis."""
    start, end = (bound + extent if bound < 0 else bound for bound in (start, end))
    low, high = (0, extent) if step > 0 else (-1, extent - 1)
    # A backward slice may start at the last element and end before the first; neither can point further out.
    start, end = min(max(start, max(low, 0)), high), min(max(end, low), high)
    return Span(start, max(0, -((start - end) // step)), step)


def slice_spans(op: Op) -> tuple[Span, ...]:
    """For each axis of the data the elements that a Slice node takes."""
    shape = op.type(0).shape
    spans = [Span(0, dim, 1) for dim in shape]
    starts, ends = op.ints(1), op.ints(2)
    axes = op.ints(3) if op.has(3) else tuple(range(len(starts)))
    steps = op.ints(4) if op.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        seen = f"Slice with starts {list(starts)}, ends {list(ends)}, axes {list(axes)}, steps {list(steps)}"
        raise ModelError(op.label, seen, "equally many of each, no step of 0")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = shapes.axis_index(axis, len(shape), op.label)
        if (start, step) == (0, 1) and end >= np.iinfo(np.int32).max:
            continue  # the whole axis, even an open one
        (extent,) = shapes.static((shape[axis],), op.label)
        spans[axis] = span(extent, start, end, step)
    return tuple(spans)


def _infer_slice(op: Op) -> list[TensorType]:
    return [TensorType(op.type(0).dtype, tuple(s.count for s in slice_spans(op)))]


def _slice(op: Op, data: np.ndarray, *bounds: np.ndarray) -> np.ndarray:
    for axis, taken in enumerate(slice_spans(op)):
        if taken != Span(0, data.shape[axis], 1) and isinstance(taken.count, int):
            data = np.take(data, taken.start + taken.step * np.arange(taken.count), axis)
    return data


def _slice_decomposed(op: Op) -> Value | None:
    """A slice of everything is the input."""
    return op.value(0) if slice_spans(op) == tuple(Span(0, dim, 1) for dim in op.type(0).shape) else None


define("Slice", _infer_slice, _slice, _slice_decomposed, static=(1, 2, 3, 4))


def sliced(value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """``value[..., start:stop:step, ...]`` along ``axis``; bounds inside the axis."""
    return make("Slice", value, ints([start]), ints([stop]), ints([axis]), ints([step]))


def split_sizes(op: Op) -> tuple[int, ...]:
    """The extents of a Split node's outputs along its axis."""
    shape = op.type(0).shape
    (extent,) = shapes.static((shape[op.axis(0, len(shape))],), op.label)
    if op.has(1):
        sizes = op.ints(1)
    else:
        count = int(op.attr("num_outputs", 0))
        if count < 1:
            raise ModelError(op.label, "Split has neither sizes nor num_outputs", "one of them must be given")
        part = -(-extent // count)
        sizes = tuple(min(part, max(0, extent - i * part)) for i in range(count))
    if sum(sizes) != extent or min(sizes) < 0:
        raise ModelError(op.label, f"Split of an axis of {extent} into {list(sizes)}", "sizes that add up to it")
    return sizes


def _infer_split(op: Op) -> list[TensorType]:
    dtype, shape = op.type(0).dtype, op.type(0).shape
    axis = op.axis(0, len(shape))
    return [TensorType(dtype, (*shape[:axis], size, *shape[axis + 1 :])) for size in split_sizes(op)]


def _split(op: Op, data: np.ndarray, sizes: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    return tuple(np.split(data, np.cumsum(split_sizes(op))[:-1], op.axis(0, data.ndim)))


def _split_decomposed(op: Op) -> tuple[Value, ...]:
    """Split(x) -> a Slice for each output"""
    axis, ends = op.axis(0, len(op.type(0).shape)), np.cumsum(split_sizes(op))
    return tuple(sliced(op.value(0), axis, int(end) - size, int(end)) for size, end in zip(split_sizes(op), ends, strict=True))


define("Split", _infer_split, _split, _split_decomposed, static=(1,))


def pad_widths(op: Op) -> tuple[tuple[int, int], ...]:
    """For each axis of a Pad node how much is added before and after; a negative width cuts away."""
    rank = len(op.type(0).shape)
    pads = op.ints(1)
    axes = [shapes.axis_index(axis, rank, op.label) for axis in op.ints(3)] if op.has(3) else list(range(rank))
    if len(pads) != 2 * len(axes):
        raise ModelError(op.label, f"Pad has {len(pads)} widths for {len(axes)} axes", "two for each axis")
    given = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    return tuple(given.get(axis, (0, 0)) for axis in range(rank))


def _infer_pad(op: Op) -> list[TensorType]:
    choice(op, "mode", "constant", ("constant", "reflect", "edge", "wrap"))
    if op.has(2):
        common_dtype(op, (0, 2))
    padded: list[Dim] = []
    for dim, (before, after) in zip(op.type(0).shape, pad_widths(op), strict=True):
        padded.append(dim if before == after == 0 else shapes.static((dim,), op.label)[0] + before + after)
        if isinstance(dim, int) and max(0, -before) + max(0, -after) > dim:
            raise ModelError(op.label, f"Pad of {op.type(0)} by {list(pad_widths(op))}", "no more may be cut than there is")
    return [TensorType(op.type(0).dtype, tuple(padded))]


def _pad(op: Op, data: np.ndarray, pads: np.ndarray, fill: np.ndarray | None = None, axes: object = None) -> np.ndarray:
    widths = pad_widths(op)
    kept = tuple(slice(max(0, -a), extent - max(0, -b)) for (a, b), extent in zip(widths, data.shape, strict=True))
    added = [(max(0, a), max(0, b)) for a, b in widths]
    if op.attr("mode", "constant") != "constant":
        return np.pad(data[kept], added, mode=op.attr("mode"))
    result = np.zeros([e + a + b for (a, b), e in zip(added, data[kept].shape, strict=True)], data.dtype)
    result[...] = 0 if fill is None else fill.reshape(())
    result[tuple(slice(a, a + e) for (a, _), e in zip(added, data[kept].shape, strict=True))] = data[kept]
    return result


def _pad_decomposed(op: Op) -> Value | None:
    """Pad by nothing -> the input"""
    return None if any(a or b for a, b in pad_widths(op)) else op.value(0)


define("Pad", _infer_pad, _pad, _pad_decomposed, static=(1, 3))


def _crop_pad_widths(op: Op) -> tuple[tuple[int, int], ...]:
    """CenterCropPad as widths of a Pad: an odd remainder goes to the end."""
    shape = op.shape(0)
    axes = [shapes.axis_index(axis, len(shape), op.label) for axis in op.attr("axes") or range(len(shape))]
    if len(axes) != len(op.ints(1)):
        raise ModelError(op.label, f"CenterCropPad has {len(op.ints(1))} extents for {len(axes)} axes", "one for each")
    widths = [(0, 0)] * len(shape)
    for axis, wanted in zip(axes, op.ints(1), strict=True):
        missing = wanted - shape[axis]
        half = abs(missing) // 2
        widths[axis] = (half, missing - half) if missing >= 0 else (-half, missing + half)
    return tuple(widths)


def _center_crop_pad(op: Op) -> Value:
    """CenterCropPad(x) -> Pad(x), with negative widths where it crops"""
    befores, afters = zip(*_crop_pad_widths(op), strict=True)
    return make("Pad", op.value(0), ints(befores + afters))


def _infer_center_crop_pad(op: Op) -> list[TensorType]:
    widths = _crop_pad_widths(op)
    shape = tuple(dim + a + b for dim, (a, b) in zip(op.shape(0), widths, strict=True))
    return [TensorType(op.type(0).dtype, shape)]


def _center_crop_pad_reference(op: Op, data: np.ndarray, shape: np.ndarray) -> np.ndarray:
    padded = np.pad(data, [(max(a, 0), max(b, 0)) for a, b in _crop_pad_widths(op)])
    ends = zip(_crop_pad_widths(op), padded.shape, strict=True)
    return padded[tuple(slice(max(0, -a), extent - max(0, -b)) for (a, b), extent in ends)]


define("CenterCropPad", _infer_center_crop_pad, _center_crop_pad_reference, _center_crop_pad, static=(1,))
