"""Reading at indices: Gather, GatherElements, GatherND, ReverseSequence. Negative indices count from the back."""

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define
from redline.ops.rules import reshaped, same
from redline.ops.slicing import sliced


def _infer_gather(op: Op) -> list[TensorType]:
    shape = op.type(0).shape
    axis = op.axis(0, len(shape))
    return [TensorType(op.type(0).dtype, shape[:axis] + op.type(1).shape + shape[axis + 1 :])]


def _gather_decomposed(op: Op) -> Value | None:
    """Gather of evenly spaced constant indices -> Reshape(Slice(x))"""
    axis, indices = op.axis(0, len(op.type(0).shape)), op.value(1).array
    extent = op.type(0).shape[axis]
    if indices is None or indices.size == 0 or not isinstance(extent, int):
        return None
    flat = np.where(indices < 0, indices + extent, indices).reshape(-1).astype(np.int64)
    if flat.min() < 0 or flat.max() >= extent:
        raise ModelError(op.label, f"Gather at {flat.min()}..{flat.max()} of an axis of {extent}", f"allowed: 0..{extent - 1}")
    step = int(flat[1] - flat[0]) if flat.size > 1 else 1
    if step == 0 or np.any(np.diff(flat) != step):
        return None
    stop = int(flat[-1]) + (1 if step > 0 else -1)
    taken = sliced(op.value(0), axis, int(flat[0]), stop if stop >= 0 else -extent - 1, step)
    return reshaped(taken, _infer_gather(op)[0].shape)


def _gather(op: Op, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(data, indices, op.axis(0, data.ndim))


define("Gather", _infer_gather, _gather, _gather_decomposed)


def _infer_gather_elements(op: Op) -> list[TensorType]:
    op.axis(0, len(op.type(0).shape))
    if len(op.type(0).shape) != len(op.type(1).shape):
        raise ModelError(op.label, f"GatherElements of {op.type(0)} at {op.type(1)}", "equal ranks")
    return [TensorType(op.type(0).dtype, op.type(1).shape)]


def _gather_elements(op: Op, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = op.axis(0, data.ndim)
    box = tuple(slice(None) if i == axis else slice(extent) for i, extent in enumerate(indices.shape))
    return np.take_along_axis(data[box], indices, axis)


define("GatherElements", _infer_gather_elements, _gather_elements)


def _infer_gather_nd(op: Op) -> list[TensorType]:
    data, indices = op.type(0).shape, op.type(1).shape
    batch = int(op.attr("batch_dims", 0))
    (depth,) = shapes.static(indices[-1:], op.label) if indices else (0,)
    if not 0 <= batch < len(indices) or not 1 <= depth <= len(data) - batch or data[:batch] != indices[:batch]:
        raise ModelError(
            op.label, f"GatherND of {op.type(0)} at {op.type(1)} with batch_dims {batch}",
            "indices [batch..., ..., k] with k at most the rank of the data without its batch axes",
        )  # fmt: skip
    return [TensorType(op.type(0).dtype, indices[:-1] + data[batch + depth :])]


def _gather_nd(op: Op, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    batch = int(op.attr("batch_dims", 0))
    outer = np.ogrid[tuple(slice(extent) for extent in indices.shape[:batch])]
    grids = [g.reshape(g.shape + (1,) * (indices.ndim - 1 - batch)) for g in outer]
    return data[(*grids, *np.moveaxis(indices, -1, 0))]


define("GatherND", _infer_gather_nd, _gather_nd)


def _reverse_sequence(op: Op, data: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    batch, time = op.axis(1, data.ndim, "batch_axis"), op.axis(0, data.ndim, "time_axis")
    steps, ends = np.arange(data.shape[time]), lengths.reshape(-1, 1)
    source = np.where(steps < ends, ends - 1 - steps, steps)
    rest = [1] * (data.ndim - 2)
    source = source.reshape(*source.shape, *rest)
    return np.moveaxis(np.take_along_axis(np.moveaxis(data, (batch, time), (0, 1)), source, 1), (0, 1), (batch, time))


define("ReverseSequence", same, _reverse_sequence)
