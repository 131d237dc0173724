"""Softmax, LogSoftmax and Hardmax along one axis."""

from collections.abc import Callable

import numpy as np

from redline.base import shapes
from redline.ir import TensorType, Value, constant
from redline.ops.registry import Op, Reference, define, make
from redline.ops.rules import cast, ints, wide


def axis_of(op: Op) -> int:
    return op.axis(-1, len(op.type(0).shape))


def _infer(op: Op) -> list[TensorType]:
    axis_of(op)
    return [op.type(0)]


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """exp(x) / sum(exp(x)), shifted by the largest so that nothing overflows; sums in float64."""
    powers = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=axis, keepdims=True, dtype=np.float64)


def _log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True, dtype=np.float64))


def _hardmax(x: np.ndarray, axis: int) -> np.ndarray:
    ones = np.zeros_like(x)
    if x.size:
        np.put_along_axis(ones, np.expand_dims(x.argmax(axis=axis), axis), 1, axis)
    return ones


def _along(function: Callable[[np.ndarray, int], np.ndarray]) -> Reference:
    return lambda op, x: function(wide(x), axis_of(op))


def _shifted(op: Op) -> tuple[Value, Value]:
    """The input less its largest along the axis, and the axis."""
    axes = ints([axis_of(op)])
    return make("Sub", op.value(0), make("ReduceMax", op.value(0), axes, keepdims=1)), axes


def _decompose_softmax(op: Op) -> Value:
    shifted, axes = _shifted(op)
    powers = make("Exp", shifted)
    return make("Div", powers, make("ReduceSum", powers, axes, keepdims=1))


def _decompose_log_softmax(op: Op) -> Value:
    shifted, axes = _shifted(op)
    return make("Sub", shifted, make("Log", make("ReduceSum", make("Exp", shifted), axes, keepdims=1)))


def _decompose_hardmax(op: Op) -> Value:
    """1 where the coordinate along the axis is that of the first largest element."""
    x, axis = op.value(0), axis_of(op)
    extent = shapes.static(x.shape[axis : axis + 1], op.label)[0]
    coordinates = np.arange(extent, dtype=np.int64).reshape(-1, *(1,) * (len(x.shape) - 1 - axis))
    return cast(make("Equal", make("ArgMax", x, axis=axis, keepdims=1), constant(coordinates)), x.dtype)


define("Softmax", _infer, _along(softmax), _decompose_softmax)
define("LogSoftmax", _infer, _along(_log_softmax), _decompose_log_softmax)
define("Hardmax", _infer, _along(_hardmax), _decompose_hardmax)
