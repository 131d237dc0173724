"""Operators whose result's extent depends on values, constants or found by the run; and Trilu."""

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import cast, ints, reshaped, same, scalar, wide


def _chosen(op: Op) -> np.ndarray:
    """The indices that Compress keeps along its axis."""
    return np.flatnonzero(op.const(1))


def _infer_compress(op: Op) -> list[TensorType]:
    kept = len(_chosen(op)) if op.attr("count") is None else int(op.attr("count"))
    if op.attr("axis") is None:
        return [TensorType(op.type(0).dtype, (kept,))]
    shape = op.type(0).shape
    axis = op.axis(0, len(shape))
    return [TensorType(op.type(0).dtype, (*shape[:axis], kept, *shape[axis + 1 :]))]


def _compress(op: Op, data: np.ndarray, condition: np.ndarray) -> np.ndarray:
    axis = None if op.attr("axis") is None else op.axis(0, data.ndim)
    return np.compress(condition, data, axis)


def _compress_decomposed(op: Op) -> Value:
    """Compress(x) -> Gather(x), of the flattened x when there is no axis"""
    x, axis, chosen = op.value(0), 0, ints(_chosen(op)) if op.attr("count") is None else _chosen_by_the_run(op)
    if op.attr("axis") is not None:
        axis = op.axis(0, len(op.type(0).shape))
    else:
        x = reshaped(x, (shapes.size(op.shape(0)),))
    return make("Gather", x, chosen, axis=axis)


def _chosen_by_the_run(op: Op) -> Value:
    """The positions of the conditions that hold, as far as the axis goes."""
    most = _most_chosen(op)
    condition = op.value(1)
    if op.shape(1)[0] != most:
        condition = make("Slice", condition, ints([0]), ints([most]), ints([0]))
    return _positions(op, condition)


def _compress_bound(op: Op) -> int | None:
    return None if op.is_const(1) else _most_chosen(op)


def _most_chosen(op: Op) -> int:
    shape = op.shape(0)
    extent = shapes.size(shape) if op.attr("axis") is None else shape[op.axis(0, len(shape))]
    return min(extent, op.shape(1)[0])


def _positions(op: Op, condition: Value) -> Value:
    return make("TruePositions", condition, count=op.attr("count"), slot=op.attr("slot"))


define("Compress", _infer_compress, _compress, _compress_decomposed, static=(1,), bound=_compress_bound)


def _infer_positions(op: Op) -> list[TensorType]:
    return [TensorType(dtypes.int64, (int(op.attr("count")),))]


# Where a vector of bool is true: ``count`` positions. Only made by the decompositions here.
define("TruePositions", _infer_positions, lambda op, x: np.flatnonzero(x))


def _infer_nonzero(op: Op) -> list[TensorType]:
    if op.attr("count") is not None:
        return [TensorType(dtypes.int64, (len(op.type(0).shape), int(op.attr("count"))))]
    array = op.const(0)
    return [TensorType(dtypes.int64, (array.ndim, int(np.count_nonzero(array))))]


def _nonzero(op: Op, x: np.ndarray) -> np.ndarray:
    return np.stack(np.nonzero(wide(x))) if x.ndim else np.zeros((0, np.count_nonzero(x)), np.int64)


def _nonzero_bound(op: Op) -> int | None:
    shape = op.shape(0)
    return None if op.is_const(0) or not shape else shapes.size(shape)


def _nonzero_decomposed(op: Op) -> Value | None:
    """NonZero(x) -> the coordinates of the flat positions where x is not 0, one row an axis"""
    if op.attr("count") is None:
        return None
    shape = op.shape(0)
    flat = _positions(op, cast(reshaped(op.value(0), (shapes.size(shape),)), dtypes.bool_))
    rows = []
    for extent, stride in zip(shape, shapes.contiguous_strides(shape), strict=True):
        row = flat if stride == 1 else make("Div", flat, scalar(stride, dtypes.int64))
        row = row if len(shape) == 1 else make("Mod", row, scalar(extent, dtypes.int64))
        rows.append(reshaped(row, (1, int(op.attr("count")))))
    return rows[0] if len(rows) == 1 else make("Concat", *rows, axis=0)


define("NonZero", _infer_nonzero, _nonzero, _nonzero_decomposed, static=(0,), bound=_nonzero_bound)


def diagonal(op: Op) -> int:
    """The k of a Trilu node."""
    return op.ints(1)[0] if op.has(1) else 0


def _infer_trilu(op: Op) -> list[TensorType]:
    if len(op.type(0).shape) < 2:
        raise ModelError(op.label, f"Trilu of {op.type(0)}", "matrices")
    diagonal(op)
    return same(op)


def _trilu(op: Op, x: np.ndarray, k: np.ndarray | None = None) -> np.ndarray:
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    distance = columns - rows - diagonal(op)
    return np.where(distance >= 0 if op.attr("upper", 1) else distance <= 0, x, np.zeros((), x.dtype))


define("Trilu", _infer_trilu, _trilu, static=(1,))
