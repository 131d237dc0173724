"""Reductions over axes that are known at build time.

ReduceSum, ReduceMean, ReduceProd, ReduceMax and ReduceMin are primitive; the others decompose into them. Sums and
products of floats are accumulated in float64.
"""

from collections.abc import Callable

import numpy as np

from redline.base import dtypes, shapes
from redline.base.dtypes import DType
from redline.base.shapes import Shape
from redline.ir import TensorType, Value
from redline.ops.binary import divide
from redline.ops.registry import Op, Reference, define, make
from redline.ops.rules import HALF, cast, reshaped, scalar, wide


def reduced_axes(op: Op) -> tuple[int, ...]:
    """The axes that a Reduce* node reduces, sorted and not negative."""
    rank = len(op.type(0).shape)
    axes = op.ints(1) if op.has(1) else ()
    if not axes and not op.attr("noop_with_empty_axes", 0):
        return tuple(range(rank))
    return tuple(sorted({shapes.axis_index(axis, rank, op.label) for axis in axes}))


def _reduced_shape(op: Op, keepdims: bool) -> Shape:
    axes = reduced_axes(op)
    dims = (1 if i in axes else dim for i, dim in enumerate(op.type(0).shape) if keepdims or i not in axes)
    return tuple(dims)


def _infer(op: Op) -> list[TensorType]:
    return [TensorType(op.type(0).dtype, _reduced_shape(op, bool(op.attr("keepdims", 1))))]


def _accumulator(x: np.ndarray) -> np.dtype:
    return np.dtype(np.float64) if x.dtype.kind == "f" else x.dtype


def _lowest(dtype: np.dtype) -> float | int:
    """What ReduceMax gives where nothing is reduced."""
    return -np.inf if dtype.kind == "f" else 0 if dtype.kind == "b" else int(np.iinfo(dtype).min)


def _highest(dtype: np.dtype) -> float | int:
    return np.inf if dtype.kind == "f" else 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)


Fold = Callable[[np.ndarray, tuple[int, ...], bool], np.ndarray]


def _sum(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
    return np.sum(x, axis=axes, keepdims=keep, dtype=_accumulator(x))


def _mean(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
    """Integers are divided towards zero; the mean of nothing is NaN."""
    total = _sum(x, axes, keep)
    return divide(total, np.array(shapes.size(x.shape[axis] for axis in axes), total.dtype))


def _sum_of_squares(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
    return _sum(np.square(x.astype(_accumulator(x))), axes, keep)


def _log_sum_exp(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
    highest = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    offset = np.where(np.isinf(highest), 0, highest)
    total = np.log(_sum(np.exp(x - offset), axes, True)) + offset
    return total if keep else np.squeeze(total, axes)


FOLDS: dict[str, Fold] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": lambda x, axes, keep: np.prod(x, axis=axes, keepdims=keep, dtype=_accumulator(x)),
    "ReduceMax": lambda x, axes, keep: np.max(x, axis=axes, keepdims=keep, initial=_lowest(x.dtype)),
    "ReduceMin": lambda x, axes, keep: np.min(x, axis=axes, keepdims=keep, initial=_highest(x.dtype)),
    "ReduceL1": lambda x, axes, keep: _sum(np.abs(x), axes, keep),
    "ReduceL2": lambda x, axes, keep: np.sqrt(_sum_of_squares(x, axes, keep)),
    "ReduceSumSquare": _sum_of_squares,
    "ReduceLogSum": lambda x, axes, keep: np.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": _log_sum_exp,
}


def _reference(name: str) -> Reference:
    fold = FOLDS[name]
    return lambda op, data, axes=None: fold(wide(data), reduced_axes(op), bool(op.attr("keepdims", 1)))


def _primitive(op: Op) -> Value | None:
    """A reduction over no axis is the input."""
    return None if reduced_axes(op) else op.value(0)


def _reduce(op: Op, name: str, x: Value, **changed: int) -> Value:
    return make(name, x, *op.inputs[1:], **{**op.attrs, **changed})


def _through(op: Op, kind: DType, body: Callable[[Value], Value]) -> Value:
    """``body`` of input 0 in another type, cast back."""
    return cast(body(cast(op.value(0), kind)), op.type(0).dtype)


def _real(dtype: DType) -> DType:
    """The type to compute in so that intermediate results neither round nor overflow early."""
    return dtypes.float32 if dtype in HALF else dtype if dtype.is_float else dtypes.float64


def _l1(op: Op) -> Value:
    """ReduceL1(x) -> ReduceSum(|x|)"""
    return _reduce(op, "ReduceSum", make("Abs", op.value(0)))


def _square_sum(op: Op, x: Value) -> Value:
    return _reduce(op, "ReduceSum", make("Mul", x, x))


def _sum_square(op: Op) -> Value:
    """ReduceSumSquare(x) -> ReduceSum(x * x)"""
    kind = op.type(0).dtype
    return _through(op, _real(kind) if kind.is_float else kind, lambda x: _square_sum(op, x))


def _l2(op: Op) -> Value:
    """ReduceL2(x) -> Sqrt(ReduceSum(x * x))"""
    return _through(op, _real(op.type(0).dtype), lambda x: make("Sqrt", _square_sum(op, x)))


def _log_sum(op: Op) -> Value:
    """ReduceLogSum(x) -> Log(ReduceSum(x))"""
    return _through(op, _real(op.type(0).dtype), lambda x: make("Log", _reduce(op, "ReduceSum", x)))


def _log_sum_exp_decomposed(op: Op) -> Value:
    """ReduceLogSumExp(x) -> Log(ReduceSum(Exp(x - m))) + m with m = ReduceMax(x), 0 where that is infinite"""

    def body(x: Value) -> Value:
        highest = _reduce(op, "ReduceMax", x, keepdims=1)
        offset = make("Where", make("IsInf", highest), scalar(0, x.dtype), highest)
        total = _reduce(op, "ReduceSum", make("Exp", make("Sub", x, offset)), keepdims=1)
        return reshaped(make("Add", make("Log", total), offset), _infer(op)[0].shape)

    return _through(op, _real(op.type(0).dtype), body)


DECOMPOSED = {
    "ReduceL1": _l1, "ReduceL2": _l2, "ReduceSumSquare": _sum_square, "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp_decomposed,
}  # fmt: skip

for _name in FOLDS:
    define(_name, _infer, _reference(_name), DECOMPOSED.get(_name, _primitive), static=(1,))
