"""Writing at indices into a copy: ScatterElements, ScatterND, TensorScatter."""

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.ir import TensorType
from redline.ops.registry import Op, define
from redline.ops.rules import choice, common_dtype, same, widened

REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _write(op: Op, data: np.ndarray, where: tuple[np.ndarray, ...], updates: np.ndarray) -> np.ndarray:
    """``data`` with ``updates`` stored at ``where``, or folded into what is there."""
    result = data.copy()
    reduction = op.attr("reduction", "none")
    if reduction == "none":
        result[where] = updates
    else:
        REDUCTIONS[reduction].at(result, where, updates)  # type: ignore[attr-defined]
    return result


def _check(op: Op) -> None:
    choice(op, "reduction", "none", ("none", *REDUCTIONS))
    common_dtype(op, (0, 2))


def _infer_scatter_elements(op: Op) -> list[TensorType]:
    _check(op)
    op.axis(0, len(op.type(0).shape))
    if len(op.type(0).shape) != len(op.type(1).shape) or op.type(1).shape != op.type(2).shape:
        seen = f"ScatterElements of updates {op.type(2)} at {op.type(1)} into {op.type(0)}"
        raise ModelError(op.label, seen, "equal ranks, and updates in the shape of the indices")
    return same(op)


def _scatter_elements(op: Op, data: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    where: list[np.ndarray] = list(np.indices(indices.shape, sparse=True))
    where[op.axis(0, data.ndim)] = indices
    return _write(op, data, tuple(where), updates)


define("ScatterElements", _infer_scatter_elements, widened(_scatter_elements))


def _infer_scatter_nd(op: Op) -> list[TensorType]:
    _check(op)
    data, indices, updates = (op.type(i).shape for i in range(3))
    (depth,) = shapes.static(indices[-1:], op.label) if indices else (0,)
    if not 1 <= depth <= len(data) or updates != indices[:-1] + data[depth:]:
        seen = f"ScatterND of updates {op.type(2)} at {op.type(1)} into {op.type(0)}"
        raise ModelError(op.label, seen, "updates of the indices' outer shape and the data's inner shape")
    return same(op)


def _scatter_nd(op: Op, data: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    return _write(op, data, tuple(np.moveaxis(indices, -1, 0)), updates)


define("ScatterND", _infer_scatter_nd, widened(_scatter_nd))


def _infer_tensor_scatter(op: Op) -> list[TensorType]:
    common_dtype(op, (0, 1))
    choice(op, "mode", "linear", ("linear", "circular"))
    cache, update = op.shape(0), op.shape(1)
    axis = op.axis(-2, len(cache))
    fits = len(cache) == len(update) and all(
        u <= c if i == axis else u == c for i, (c, u) in enumerate(zip(cache, update, strict=True))
    )
    if axis == 0 or not fits:
        seen = f"TensorScatter of {op.type(1)} into {op.type(0)} along axis {axis}"
        raise ModelError(op.label, seen, "equal shapes but for that axis, which is not the first")
    return same(op)


def _tensor_scatter(op: Op, cache: np.ndarray, update: np.ndarray, begins: np.ndarray | None = None) -> np.ndarray:
    """Row b of ``update`` goes to ``begins[b]`` and on along the axis; circular mode wraps around."""
    axis = op.axis(-2, cache.ndim)
    starts = np.zeros(cache.shape[0], np.int64) if begins is None else begins
    where = np.add.outer(starts, np.arange(update.shape[axis]))
    if op.attr("mode", "linear") == "circular":
        where = where % cache.shape[axis]
    result = np.moveaxis(cache.copy(), axis, 1)
    result[np.arange(cache.shape[0])[:, None], where] = np.moveaxis(update, axis, 1)
    return np.moveaxis(result, 1, axis)


define("TensorScatter", _infer_tensor_scatter, _tensor_scatter)
