"""Operators that make tensors from little: Shape, Size, ConstantOfShape, EyeLike, Range, OneHot."""

import math

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.base.shapes import Shape
from redline.ir import TensorType, Value, constant
from redline.ops.registry import Op, define, make
from redline.ops.rules import HALF, cast, common_dtype, ints, onnx_dtype, reshaped, scalar


def _shape_part(op: Op) -> Shape:
    """The dimensions that a Shape node reports."""
    return op.type(0).shape[op.attr("start", 0) : op.attr("end")]


def _shape_decomposed(op: Op) -> Value | None:
    """Shape of known dimensions -> a constant"""
    part = _shape_part(op)
    return ints(shapes.static(part)) if shapes.is_static(part) else None


def _size_decomposed(op: Op) -> Value | None:
    shape = op.type(0).shape
    return constant(np.array(shapes.size(shapes.static(shape)), np.int64)) if shapes.is_static(shape) else None


define(
    "Shape", lambda op: [TensorType(dtypes.int64, (len(_shape_part(op)),))],
    lambda op, x: np.array(x.shape[op.attr("start", 0) : op.attr("end")], np.int64), _shape_decomposed,
)  # fmt: skip
define("Size", lambda op: [TensorType(dtypes.int64, ())], lambda op, x: np.array(x.size, np.int64), _size_decomposed)


def _filling(op: Op) -> np.ndarray:
    """The one element of a ConstantOfShape node."""
    value = op.attr("value")
    return np.zeros((), np.float32) if value is None else np.asarray(value).reshape(())


def _infer_constant_of_shape(op: Op) -> list[TensorType]:
    if min(op.ints(0), default=0) < 0:
        raise ModelError(op.label, f"ConstantOfShape {list(op.ints(0))}", "no negative extent")
    return [TensorType(dtypes.from_numpy(_filling(op).dtype), op.ints(0))]


def _constant_of_shape(op: Op, shape: np.ndarray) -> np.ndarray:
    return np.full(tuple(shape), _filling(op))


define(
    "ConstantOfShape", _infer_constant_of_shape, _constant_of_shape,
    lambda op: make("Expand", constant(_filling(op)), ints(op.ints(0))), static=(0,),
)  # fmt: skip


def _infer_eye(op: Op) -> list[TensorType]:
    if len(op.type(0).shape) != 2:
        raise ModelError(op.label, f"EyeLike of {op.type(0)}", "a matrix")
    return [TensorType(onnx_dtype(op, "dtype", op.type(0).dtype), op.type(0).shape)]


def _eye(op: Op, x: np.ndarray) -> np.ndarray:
    return np.eye(x.shape[0], x.shape[1], op.attr("k", 0))


def _eye_decomposed(op: Op) -> Value:
    rows, columns = op.shape(0)
    return constant(np.eye(rows, columns, op.attr("k", 0)).astype(_infer_eye(op)[0].dtype.numpy))


define("EyeLike", _infer_eye, _eye, _eye_decomposed)


def _range_count(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> int:
    """How many numbers lie from start to below limit."""
    first, last, step = (np.asarray(x).reshape(()).item() for x in (start, limit, delta))
    if step == 0:
        raise ModelError("Range", "delta is 0", "another step")
    return max(0, -((first - last) // step) if start.dtype.kind in "iu" else math.ceil((last - first) / step))


def _range(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """start + i * delta for i below ceil((limit - start) / delta); half precision counts in float32."""
    first, step = (np.asarray(x).reshape(()).item() for x in (start, delta))
    dtype = np.dtype(np.float32) if dtypes.from_numpy(start.dtype) in HALF else start.dtype
    steps = np.arange(_range_count(start, limit, delta)).astype(dtype)
    return (steps * dtype.type(step) + dtype.type(first)).astype(start.dtype)


def _infer_range(op: Op) -> list[TensorType]:
    return [TensorType(common_dtype(op), (_range_count(op.const(0), op.const(1), op.const(2)),))]


define(
    "Range", _infer_range, lambda op, *bounds: _range(*bounds),
    lambda op: constant(_range(op.const(0), op.const(1), op.const(2))), static=(0, 1, 2),
)  # fmt: skip


def _one_hot_axis(op: Op) -> int:
    return op.axis(-1, len(op.type(0).shape) + 1)


def _infer_one_hot(op: Op) -> list[TensorType]:
    shape, axis, (depth,) = op.type(0).shape, _one_hot_axis(op), op.ints(1)
    return [TensorType(op.type(2).dtype, (*shape[:axis], depth, *shape[axis:]))]


def _one_hot(op: Op, indices: np.ndarray, depth: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Negative indices count from the back; those outside are off everywhere."""
    axis, classes = _one_hot_axis(op), int(depth.reshape(-1)[0])
    wanted = indices.astype(np.int64)
    wanted = np.expand_dims(np.where(wanted < 0, wanted + classes, wanted), axis)
    positions = np.arange(classes).reshape(-1, *[1] * (indices.ndim - axis))
    return np.where(wanted == positions, values[1], values[0])


def _one_hot_decomposed(op: Op) -> Value:
    """OneHot(i) -> Where(i' == 0..depth-1, on, off), where i' = Where(i < 0, i + depth, i) has a new axis"""
    axis, (depth,), rank = _one_hot_axis(op), op.ints(1), len(op.type(0).shape)
    raw = cast(op.value(0), dtypes.int64)
    wanted = make("Where", make("Less", raw, scalar(0, raw.dtype)), make("Add", raw, scalar(depth, raw.dtype)), raw)
    wanted = reshaped(wanted, (*raw.shape[:axis], 1, *raw.shape[axis:]))
    positions = reshaped(ints(range(depth)), (depth, *[1] * (rank - axis)))
    off, on = (make("Gather", op.value(2), scalar(i, dtypes.int64), axis=0) for i in range(2))
    return make("Where", make("Equal", wanted, positions), on, off)


define("OneHot", _infer_one_hot, _one_hot, _one_hot_decomposed, static=(1,))
