"""Operators along one axis: ArgMax, ArgMin, TopK, CumSum, CumProd."""

from collections.abc import Callable

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.ir import TensorType
from redline.ops.registry import Op, Reference, define
from redline.ops.rules import same, wide


def _infer_arg(op: Op) -> list[TensorType]:
    shape = op.type(0).shape
    axis = op.axis(0, len(shape))
    kept = (1,) if op.attr("keepdims", 1) else ()
    return [TensorType(dtypes.int64, shape[:axis] + kept + shape[axis + 1 :])]


def _arg(function: Callable[..., np.ndarray]) -> Reference:
    """The first position of the extreme (the last with select_last_index); a NaN is the extreme of both."""

    def reference(op: Op, data: np.ndarray) -> np.ndarray:
        axis, keep = op.axis(0, data.ndim), bool(op.attr("keepdims", 1))
        data = wide(data)
        if op.attr("select_last_index", 0):
            return data.shape[axis] - 1 - function(np.flip(data, axis), axis=axis, keepdims=keep)
        return function(data, axis=axis, keepdims=keep)

    return reference


define("ArgMax", _infer_arg, _arg(np.argmax))
define("ArgMin", _infer_arg, _arg(np.argmin))


def _infer_topk(op: Op) -> list[TensorType]:
    shape = op.type(0).shape
    axis = op.axis(-1, len(shape))
    if op.attr("count") is not None:
        shape = (*shape[:axis], int(op.attr("count")), *shape[axis + 1 :])
        return [TensorType(op.type(0).dtype, shape), TensorType(dtypes.int64, shape)]
    (k,) = op.ints(1)
    extent = shape[axis]
    if isinstance(extent, int) and not 0 <= k <= extent:
        raise ModelError(op.label, f"TopK of {k} along an axis of {extent}", f"allowed: 0..{extent}")
    shape = (*shape[:axis], k, *shape[axis + 1 :])
    return [TensorType(op.type(0).dtype, shape), TensorType(dtypes.int64, shape)]


def _topk(op: Op, data: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted whatever ``sorted`` says; of equal values the lower index comes first; NaN is the largest."""
    axis, (k,) = op.axis(-1, data.ndim), count.reshape(-1)
    values = wide(data)
    if op.attr("largest", 1):
        # An ascending stable sort of the reversed data, read backwards: descending, ties in order of index.
        backwards = np.argsort(np.flip(values, axis), axis=axis, kind="stable")
        order = data.shape[axis] - 1 - np.flip(backwards, axis)
    else:
        order = np.argsort(values, axis=axis, kind="stable")
    chosen = np.take(order, np.arange(k), axis)
    return np.take_along_axis(data, chosen, axis), chosen


def _topk_bound(op: Op) -> int | None:
    return None if op.is_const(1) else op.shape(0)[op.axis(-1, len(op.type(0).shape))]


define("TopK", _infer_topk, _topk, static=(1,), bound=_topk_bound)


def scan_axis(op: Op) -> int:
    """The axis of a CumSum or CumProd node."""
    (axis,) = op.ints(1)
    return shapes.axis_index(axis, len(op.type(0).shape), op.label)


def _infer_scan(op: Op) -> list[TensorType]:
    scan_axis(op)
    return same(op)


def _scan(function: Callable[..., np.ndarray], start: int) -> Reference:
    def reference(op: Op, x: np.ndarray, axis: np.ndarray) -> np.ndarray:
        line = np.moveaxis(wide(x), scan_axis(op), 0)
        line = line[::-1] if op.attr("reverse", 0) else line
        result = function(line, axis=0, dtype=line.dtype)
        if op.attr("exclusive", 0):
            result = np.concatenate([np.full_like(result[:1], start), result[:-1]])
        result = result[::-1] if op.attr("reverse", 0) else result
        return np.moveaxis(result, 0, scan_axis(op))

    return reference


define("CumSum", _infer_scan, _scan(np.cumsum, 0), static=(1,))
define("CumProd", _infer_scan, _scan(np.cumprod, 1), static=(1,))
