"""The quantized operators that ONNX Runtime's quantizer writes beside the standard ones (domain com.microsoft).

Each is dequantize, compute, quantize, and is taken apart so.
"""

from collections.abc import Callable

from redline.base.errors import ModelError
from redline.ir import TensorType, Value
from redline.ops.by_parts import by_parts
from redline.ops.layout import CHANNELS_LAST
from redline.ops.registry import Op, define, make, make_node
from redline.ops.rules import ints, reshaped

Make = Callable[[Op], Value]


def _real(op: Op, i: int, axis: int = 0) -> Value:
    """Inputs i, i + 1, i + 2 (integers, scale, zero point) as a float tensor."""
    x, scale = op.value(i), op.value(i + 1)
    zero = op.value(i + 2) if op.has(i + 2) else None
    if zero is not None and zero.shape != scale.shape:
        zero = reshaped(zero, scale.shape)
    return make("DequantizeLinear", x, scale, zero, axis=axis)


def _stored(op: Op, y: Value, i: int) -> Value:
    """``y`` quantized by inputs i (scale) and i + 1 (zero point), to input 0's type where that is absent."""
    scale, zero = op.value(i), op.value(i + 1) if op.has(i + 1) else None
    if zero is not None and zero.shape != scale.shape:
        zero = reshaped(zero, scale.shape)
    kind = {} if zero is not None else {"output_dtype": op.type(0).dtype.onnx}
    return make("QuantizeLinear", y, scale, zero, **kind)


def _binary(name: str) -> Make:
    return lambda op: _stored(op, make(name, _real(op, 0), _real(op, 3)), 6)


def _unary(name: str, *kept: str) -> Make:
    def build(op: Op) -> Value:
        attrs = {key: op.attrs[key] for key in kept if key in op.attrs}
        return _stored(op, make(name, _real(op, 0), **attrs), 3)

    return build


def _pool(name: str) -> Make:
    """``channels_last`` is how the operator says that its data are [N, spatial..., C]."""

    def build(op: Op) -> Value:
        attrs = {key: value for key, value in op.attrs.items() if key != "channels_last"}
        layout = {"layout": CHANNELS_LAST} if op.attr("channels_last", 0) else {}
        return _stored(op, make_node(name, (_real(op, 0),), attrs | layout, num_outputs=1).out, 3)

    return build


def _softmax(op: Op) -> Value:
    """Before opset 13 the operator flattened everything behind its axis."""
    x = _real(op, 0)
    axis = op.axis(-1, len(x.shape))
    if int(op.attr("opset", 13)) < 13 and axis != len(x.shape) - 1:
        raise ModelError(op.label, f"QLinearSoftmax of opset {op.attr('opset')} along axis {axis}", "allowed: the last axis")
    return _stored(op, make("Softmax", x, axis=axis), 3)


def _concat(op: Op) -> Value:
    """y_scale, y_zero, then three inputs a part."""
    parts = [_real(op, i) for i in range(2, len(op.inputs), 3)]
    return make("QuantizeLinear", make("Concat", *parts, axis=op.attr("axis", 0)), op.value(0), op.value(1))


def _gemm(op: Op) -> Value:
    """A, B and an optional int32 bias of scale a_scale * b_scale; without an output scale the result stays float."""
    b_axis = 0 if op.attr("transB", 0) else 1
    bias = None
    if op.has(6):
        scale = make("Mul", reshaped(op.value(1), ()), op.value(4))
        bias = make("DequantizeLinear", op.value(6), scale, axis=0)
    attrs = {key: op.attrs[key] for key in ("alpha", "transA", "transB") if key in op.attrs}
    y = make("Gemm", _real(op, 0), _real(op, 3, b_axis), bias, **attrs)
    return _stored(op, y, 7) if op.has(7) else y


def _global_pool(op: Op) -> Value:
    rank = len(op.type(0).shape)
    axes = range(1, rank - 1) if op.attr("channels_last", 0) else range(2, rank)
    mean = make("ReduceMean", _real(op, 0), ints(axes), keepdims=1)
    return _stored(op, mean, 3)


def _define(name: str, build: Make) -> None:
    def infer(op: Op) -> list[TensorType]:
        return [build(op).type]

    define(name, infer, by_parts(build), build)


_define("QLinearAdd", _binary("Add"))
_define("QLinearMul", _binary("Mul"))
_define("QLinearLeakyRelu", _unary("LeakyRelu", "alpha"))
_define("QLinearSigmoid", _unary("Sigmoid"))
_define("QLinearAveragePool", _pool("AveragePool"))
_define("QLinearGlobalAveragePool", _global_pool)
_define("QLinearSoftmax", _softmax)
_define("QLinearConcat", _concat)
_define("QGemm", _gemm)
