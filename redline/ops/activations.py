"""Activations: elementwise functions with the ONNX standard's attributes and defaults.

NaN follows the formulas: it passes through everything but the ones that compare first and answer with a constant
(ThresholdedRelu, Shrink give 0).
"""

import math

import numpy as np

from redline.base.errors import ModelError
from redline.ir import TensorType, Value
from redline.ops.registry import Op, Reference, define, make
from redline.ops.rules import broadcast_shape, common_dtype, plain, same, widened
from redline.ops.unary import erf, sigmoid


def _activation(name: str, reference: Reference) -> None:
    define(name, same, widened(reference), elementwise=True)


def _gelu(op: Op, x: np.ndarray) -> np.ndarray:
    if op.attr("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def _celu(op: Op, x: np.ndarray) -> np.ndarray:
    alpha = op.attr("alpha", 1.0)
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(x / alpha), 0)


def _selu(op: Op, x: np.ndarray) -> np.ndarray:
    alpha, gamma = op.attr("alpha", 1.6732631921768188), op.attr("gamma", 1.0507010221481323)
    return gamma * np.where(x > 0, x, alpha * np.expm1(x))


def _shrink(op: Op, x: np.ndarray) -> np.ndarray:
    lambd, bias = op.attr("lambd", 0.5), op.attr("bias", 0.0)
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0))


_activation("Relu", lambda op, x: np.maximum(x, 0))
_activation("LeakyRelu", lambda op, x: np.where(x < 0, x * op.attr("alpha", 0.01), x))
_activation("ThresholdedRelu", lambda op, x: np.where(x > op.attr("alpha", 1.0), x, 0))
_activation("Elu", lambda op, x: np.where(x > 0, x, op.attr("alpha", 1.0) * np.expm1(x)))
_activation("Celu", _celu)
_activation("Selu", _selu)
_activation("Gelu", _gelu)
_activation("HardSigmoid", lambda op, x: np.clip(x * op.attr("alpha", 0.2) + op.attr("beta", 0.5), 0, 1))
_activation("HardSwish", lambda op, x: x * np.clip(x / 6 + 0.5, 0, 1))
_activation("Mish", lambda op, x: x * np.tanh(np.logaddexp(x, 0)))
_activation("Shrink", _shrink)
_activation("Softplus", lambda op, x: np.logaddexp(x, 0))
_activation("Softsign", lambda op, x: x / (1 + np.abs(x)))
_activation("Swish", lambda op, x: x * sigmoid(op.attr("alpha", 1.0) * x))


def _infer_swiglu(op: Op) -> list[TensorType]:
    common_dtype(op)
    if op.type(0).shape != op.type(1).shape:
        raise ModelError(op.label, f"SwiGLU of {op.type(0)} and {op.type(1)}", "both inputs must have one shape")
    return [op.type(0)]


def _swiglu_decomposed(op: Op) -> Value:
    """SwiGLU(a, b) -> Swish(a) * b"""
    return make("Mul", make("Swish", op.value(0), alpha=op.attr("alpha", 1.0)), op.value(1))


define(
    "SwiGLU", _infer_swiglu, widened(lambda op, a, b: a * sigmoid(op.attr("alpha", 1.0) * a) * b), _swiglu_decomposed,
    elementwise=True,
)  # fmt: skip


def _infer_prelu(op: Op) -> list[TensorType]:
    common_dtype(op)
    if broadcast_shape(op) != op.type(0).shape:
        seen = f"the slope {op.type(1)} of PRelu does not fit the data {op.type(0)}"
        raise ModelError(op.label, seen, "it must broadcast to the data's shape")
    return [op.type(0)]


define("PRelu", _infer_prelu, plain(lambda x, slope: np.where(x < 0, x * slope, x)), elementwise=True)


def _infer_clip(op: Op) -> list[TensorType]:
    present = [0, *(i for i in (1, 2) if op.has(i))]
    common_dtype(op, present)
    for i in present[1:]:
        if op.shape(i) not in ((), (1,)):
            raise ModelError(op.label, f"input {i} of Clip is {op.type(i)}", "it must be a scalar")
    return [op.type(0)]


def _clip(x: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None) -> np.ndarray:
    """Where low > high the answer is high, and NaN stays NaN."""
    x = x if low is None else np.maximum(x, low.reshape(()))
    return x if high is None else np.minimum(x, high.reshape(()))


define("Clip", _infer_clip, plain(_clip), elementwise=True)
