"""Arithmetic of two and more tensors, broadcast together."""

from collections.abc import Callable
from functools import reduce

import numpy as np

from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import broadcast, broadcast_shape, choice, pair, plain, scalar, widened


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integers divide towards zero, and by zero to 0."""
    if a.dtype.kind not in "iu":
        return np.divide(a, b)
    quotient = np.floor_divide(a, b)
    inexact_negative = (np.remainder(a, b) != 0) & ((a < 0) != (b < 0))
    return quotient + inexact_negative.astype(a.dtype)


def power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """An integer with a negative integer exponent goes through float64, then towards zero."""
    if a.dtype.kind in "iu" and b.dtype.kind == "i" and np.any(b < 0):
        return np.power(a.astype(np.float64), b)
    return np.power(a, b)


def shift(op: Op, x: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Amounts below 0 or at least the width leave only the sign's extension: -1 for x < 0 going right, else 0."""
    x, amount = np.broadcast_arrays(x, amount)
    num_bits = x.dtype.itemsize * 8
    inside = (amount >= 0) & (amount < num_bits)
    safe = np.where(inside, amount, 0)
    if choice(op, "direction", "", ("LEFT", "RIGHT")) == "LEFT":
        return np.where(inside, np.left_shift(x, safe), 0)
    return np.where(inside, np.right_shift(x, safe), -(x < 0).astype(x.dtype))


def _infer_power(op: Op) -> list[TensorType]:
    return [TensorType(op.type(0).dtype, broadcast_shape(op))]


def _modulo(op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.fmod(a, b) if op.attr("fmod", 0) else np.mod(a, b)


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": divide,
    "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor,
}  # fmt: skip

for _name, _function in FUNCTIONS.items():
    define(_name, pair, plain(_function), elementwise=True)
define("Mod", pair, widened(_modulo), elementwise=True)
define("Pow", _infer_power, plain(power), elementwise=True)
define("BitShift", pair, shift, elementwise=True)


def _chain(name: str) -> Callable[[Op], Value | None]:
    """f(a, b, c) -> f(f(a, b), c)"""

    def decompose(op: Op) -> Value | None:
        if len(op.inputs) == 2 and name == op.name:
            return None
        return reduce(lambda a, b: make(name, a, b), [op.value(i) for i in range(len(op.inputs))])

    return decompose


def _mean_decomposed(op: Op) -> Value:
    """Mean(a, b, c) -> (a + b + c) / 3"""
    total = make("Sum", *op.inputs)
    return make("Div", total, scalar(len(op.inputs), total.dtype))


def _sum(*arrays: np.ndarray) -> np.ndarray:
    return reduce(np.add, arrays)


define("Max", broadcast, plain(lambda *arrays: reduce(np.maximum, arrays)), _chain("Max"), elementwise=True)
define("Min", broadcast, plain(lambda *arrays: reduce(np.minimum, arrays)), _chain("Min"), elementwise=True)
define("Sum", broadcast, plain(_sum), _chain("Add"), elementwise=True)
define("Mean", broadcast, plain(lambda *arrays: _sum(*arrays) / len(arrays)), _mean_decomposed, elementwise=True)
