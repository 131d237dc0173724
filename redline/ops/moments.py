"""Means and variances as graph operators: the arithmetic that the normalisations share.

Statistics are taken in float32 at least, whatever the type of the data.
"""

from redline.base import dtypes
from redline.ir import Value
from redline.ops.registry import Op, make
from redline.ops.rules import HALF, scalar


def epsilon_of(op: Op) -> float:
    return float(op.attr("epsilon", 1e-5))


def working_type(value: Value) -> dtypes.DType:
    """The type that statistics of ``value`` are taken in."""
    return dtypes.float32 if value.dtype in HALF else value.dtype


def moments(x: Value, axes: Value) -> tuple[Value, Value, Value]:
    """x - mean, the mean and the variance along ``axes``."""
    mean = make("ReduceMean", x, axes, keepdims=1)
    centred = make("Sub", x, mean)
    return centred, mean, make("ReduceMean", make("Mul", centred, centred), axes, keepdims=1)


def standardise(x: Value, axes: Value, epsilon: float) -> tuple[Value, Value, Value]:
    """The standardised values, the mean and 1 / sqrt(variance + epsilon)."""
    centred, mean, variance = moments(x, axes)
    inverse = make("Reciprocal", make("Sqrt", make("Add", variance, scalar(epsilon, x.dtype))))
    return make("Mul", centred, inverse), mean, inverse
