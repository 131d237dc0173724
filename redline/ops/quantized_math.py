"""Products of quantized tensors: MatMulInteger, QLinearMatMul and QLinearConv.

The references compute with exact integers; the QLinear operators decompose into DequantizeLinear, the plain operator
and QuantizeLinear, the one form in which lower precision is written everywhere else too.
"""

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.base.shapes import Shape
from redline.ir import TensorType, Value
from redline.ops.layout import in_onnx_order, is_channels_last
from redline.ops.nn_conv import conv_type, convolve, per_channel, sum_type, summed
from redline.ops.quantize import bounds
from redline.ops.registry import Op, define, make
from redline.ops.rules import cast, reshaped, wide
from redline.ops.window import explicit_window


def _product_shape(op: Op, a: int, b: int) -> Shape:
    """The shape of MatMul of inputs ``a`` and ``b``."""
    return make("MatMul", *(cast(op.value(i), dtypes.int32) for i in (a, b))).shape


def _rows(param: np.ndarray) -> np.ndarray:
    """A parameter of the left matrix: one a row stands in a column."""
    return param.reshape(-1, 1) if param.ndim == 1 and param.size > 1 else param


def _row_values(param: Value) -> Value:
    return reshaped(param, (param.shape[0], 1)) if len(param.shape) == 1 and param.shape != (1,) else param


def _centred(x: np.ndarray, zero: np.ndarray | None) -> np.ndarray:
    """Bytes less their zero point: exact in float64, and so are sums of their products."""
    return x.astype(np.float64) - (0 if zero is None else zero.astype(np.float64))


# --- MatMulInteger


def _infer_integer(op: Op) -> list[TensorType]:
    return [TensorType(sum_type(op), _product_shape(op, 0, 1))]


def _integer(
    op: Op, a: np.ndarray, b: np.ndarray, a_zero: np.ndarray | None = None, b_zero: np.ndarray | None = None
) -> np.ndarray:
    return summed(op, np.matmul(_centred(a, None if a_zero is None else _rows(a_zero)), _centred(b, b_zero)))


def _decompose_integer(op: Op) -> Value:
    a, b = (cast(op.value(i), sum_type(op)) for i in range(2))
    if op.has(2):
        a = make("Sub", a, cast(_row_values(op.value(2)), dtypes.int32))
    if op.has(3):
        b = make("Sub", b, cast(op.value(3), dtypes.int32))
    return make("MatMul", a, b)


# --- QLinearMatMul: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero


def _infer_qlinear(op: Op) -> list[TensorType]:
    return [TensorType(op.type(7).dtype, _product_shape(op, 0, 3))]


def _requantized(scaled: np.ndarray, zero: np.ndarray, dtype: dtypes.DType) -> np.ndarray:
    return np.clip(np.rint(scaled) + zero.astype(np.float64), *bounds(dtype))


def _qlinear_matmul(op: Op, *arrays: np.ndarray) -> np.ndarray:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = arrays
    total = np.matmul(_centred(a, _rows(a_zero)), _centred(b, b_zero))
    factor = _rows(wide(a_scale)) * wide(b_scale) / _rows(wide(y_scale))
    return _requantized(total * factor, _rows(y_zero), op.type(7).dtype)


def _dequantized(value: Value, scale: Value, zero: Value, axis: int) -> Value:
    """``value`` as float32. Parameters of several axes already stand where they broadcast."""
    if len(scale.shape) <= 1:
        return make("DequantizeLinear", value, scale, zero, axis=axis)
    centred = make("Sub", cast(value, dtypes.float32), cast(zero, dtypes.float32))
    return make("Mul", centred, cast(scale, dtypes.float32))


def _decompose_qlinear_matmul(op: Op) -> Value:
    if len(op.type(6).shape) > 1:
        raise ModelError(op.label, f"an output scale of shape {shapes.text(op.type(6).shape)}", "one, or one a row")
    a = _dequantized(op.value(0), op.value(1), op.value(2), max(len(op.type(0).shape) - 2, 0))
    b = _dequantized(op.value(3), op.value(4), op.value(5), len(op.type(3).shape) - 1)
    y = cast(make("MatMul", cast(a, dtypes.float32), cast(b, dtypes.float32)), op.type(6).dtype)
    return make("QuantizeLinear", y, op.value(6), op.value(7), axis=max(len(y.shape) - 2, 0))


# --- QLinearConv: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias


def _infer_qlinear_conv(op: Op) -> list[TensorType]:
    return conv_type(op, 3, op.type(7).dtype)


def _qlinear_conv(op: Op, *arrays: np.ndarray) -> np.ndarray:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = arrays[:8]
    taps = _centred(w, w_zero.reshape(-1, *(1,) * (w.ndim - 1)))
    total = convolve(_centred(x, x_zero.reshape(())), taps, int(op.attr("group", 1)), explicit_window(op))
    if len(arrays) > 8:
        total = total + per_channel(arrays[8], total.ndim)
    factor = per_channel((x_scale.reshape(()) * w_scale / y_scale.reshape(())), total.ndim)
    return _requantized(total * factor, y_zero.reshape(()), op.type(7).dtype)


def _decompose_qlinear_conv(op: Op) -> Value:
    x = make("DequantizeLinear", op.value(0), op.value(1), op.value(2))
    w = make("DequantizeLinear", op.value(3), op.value(4), op.value(5), axis=0)
    bias = None
    if op.has(8):
        scale = make("Mul", reshaped(op.value(1), ()), op.value(4))
        bias = make("DequantizeLinear", op.value(8), scale, axis=0)
    y = make("Conv", x, w, bias, **op.attrs)
    axis = len(y.shape) - 1 if is_channels_last(op) else 1
    return make("QuantizeLinear", y, op.value(6), op.value(7), axis=axis)


define("MatMulInteger", _infer_integer, _integer, _decompose_integer)
define("QLinearMatMul", _infer_qlinear, _qlinear_matmul, _decompose_qlinear_matmul)
define("QLinearConv", _infer_qlinear_conv, in_onnx_order(_qlinear_conv), _decompose_qlinear_conv)
