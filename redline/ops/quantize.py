"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear: per tensor, per axis and per block."""

import ml_dtypes
import numpy as np

from redline.base import dtypes, shapes
from redline.base.dtypes import DType
from redline.base.errors import ModelError, UnsupportedError
from redline.base.shapes import Shape
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import HALF, cast, ints, onnx_dtype, reshaped, scalar, wide

QUANTIZED = (dtypes.uint8, dtypes.int8, dtypes.uint16, dtypes.int16, dtypes.float8_e4m3fn)


def _placed(op: Op, params: Shape) -> Shape | None:
    """The shape that spreads the scales over the data by broadcasting; None for scales per block."""
    x = op.type(0).shape
    if shapes.is_static(params) and shapes.size(params) == 1:  # type: ignore[arg-type]
        return ()
    axis = op.axis(1, len(x))
    if int(op.attr("block_size", 0)):
        _check_blocks(op, params, axis)
        return None
    if params != (x[axis],):
        seen = f"scales {shapes.text(params)} over axis {axis} of {shapes.text(x)}"
        raise ModelError(op.label, seen, "one scale, or one an index of the axis")
    return (x[axis], *(1,) * (len(x) - 1 - axis))


def _check_blocks(op: Op, params: Shape, axis: int) -> None:
    x, block = op.shape(0), int(op.attr("block_size", 0))
    wanted = (*x[:axis], -(-x[axis] // max(block, 1)), *x[axis + 1 :])
    if block < 1 or params != wanted:
        seen = f"scales {shapes.text(params)} for blocks of {block} along axis {axis} of {shapes.text(x)}"
        raise ModelError(op.label, seen, f"allowed: {shapes.text(wanted)}")


def _spread_array(op: Op, param: np.ndarray) -> np.ndarray:
    """A scale or zero point as it meets the data, by broadcasting."""
    placed = _placed(op, param.shape)
    if placed is not None:
        return wide(param).reshape(placed)
    axis = op.axis(1, len(op.type(0).shape))
    repeated = np.repeat(wide(param), int(op.attr("block_size", 0)), axis=axis)
    return np.take(repeated, np.arange(op.shape(0)[axis]), axis=axis)


def _spread(op: Op, i: int) -> Value:
    """Input ``i`` as it meets the data, by broadcasting."""
    param = op.value(i)
    placed = _placed(op, param.shape)
    if placed is not None:
        return reshaped(param, placed)
    x, axis, block = op.shape(0), op.axis(1, len(op.type(0).shape)), int(op.attr("block_size", 0))
    before, count, after = x[:axis], -(-x[axis] // block), x[axis + 1 :]
    split = make("Expand", reshaped(param, (*before, count, 1, *after)), ints((*before, count, block, *after)))
    whole = reshaped(split, (*before, count * block, *after))
    return whole if count * block == x[axis] else make("Slice", whole, ints([0]), ints([x[axis]]), ints([axis]))


def _same_params(op: Op) -> None:
    """One number may be written as a scalar in one place and as a vector in the other, as ONNX Runtime's quantizer does."""
    if op.has(2) and op.type(2).shape != op.type(1).shape and {op.type(2).shape, op.type(1).shape} != {(), (1,)}:
        seen = f"scales {shapes.text(op.type(1).shape)}, zero points {shapes.text(op.type(2).shape)}"
        raise ModelError(op.label, seen, "they have one shape")


def _optional_dtype(op: Op, attr: str, default: DType) -> DType:
    """The type an attribute names; 0 and absence mean ``default``."""
    return onnx_dtype(op, attr) if op.attr(attr, 0) else default


def _quantized_dtype(op: Op) -> DType:
    dtype = op.type(2).dtype if op.has(2) else _optional_dtype(op, "output_dtype", dtypes.uint8)
    if dtype not in QUANTIZED:
        raise UnsupportedError(op.label, f"quantization to {dtype}", f"allowed: {', '.join(d.name for d in QUANTIZED)}")
    if dtype.is_float and not op.attr("saturate", 1):
        raise UnsupportedError(op.label, f"quantization to {dtype} that does not saturate", "allowed: saturate = 1")
    return dtype


def bounds(dtype: DType) -> tuple[int, int]:
    """The least and the largest value of a type that tensors are quantized to: all of them whole numbers."""
    info = ml_dtypes.finfo(dtype.numpy) if dtype.is_float else np.iinfo(dtype.numpy)
    return int(info.min), int(info.max)


def _infer_quantize(op: Op) -> list[TensorType]:
    _same_params(op)
    _placed(op, op.type(1).shape)
    return [TensorType(_quantized_dtype(op), op.type(0).shape)]


def _division_dtype(op: Op) -> DType:
    return _optional_dtype(op, "precision", op.type(1).dtype)


def _quantize(op: Op, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
    """round(x / scale), halves to even, plus the zero point, held within the type, whose floats round by themselves."""
    precision = _division_dtype(op).numpy
    quotient = (wide(x.astype(precision)) / wide(_spread_array(op, scale).astype(precision))).astype(precision)
    dtype = _quantized_dtype(op)
    placed = wide(quotient) if dtype.is_float else np.rint(wide(quotient))
    placed = placed + (0 if zero is None else _spread_array(op, zero).astype(np.float32))
    return np.clip(placed, *bounds(dtype))


def _decompose_quantize(op: Op) -> Value:
    precision, dtype = _division_dtype(op), _quantized_dtype(op)
    quotient = make("Div", cast(op.value(0), precision), cast(_spread(op, 1), precision))
    placed = cast(quotient, dtypes.float32) if precision in HALF else quotient
    placed = placed if dtype.is_float else make("Round", placed)
    if op.has(2):
        placed = make("Add", placed, cast(_spread(op, 2), placed.dtype))
    low, high = (scalar(bound, placed.dtype) for bound in bounds(dtype))
    return cast(make("Clip", placed, low, high), dtype)


def _infer_dequantize(op: Op) -> list[TensorType]:
    _same_params(op)
    _placed(op, op.type(1).shape)
    return [TensorType(_optional_dtype(op, "output_dtype", op.type(1).dtype), op.type(0).shape)]


def _dequantize(op: Op, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
    centred = x.astype(np.float32) - (0 if zero is None else _spread_array(op, zero).astype(np.float32))
    return centred * _spread_array(op, scale)


def _decompose_dequantize(op: Op) -> Value:
    centred = cast(op.value(0), dtypes.float32)
    if op.has(2):
        centred = make("Sub", centred, cast(_spread(op, 2), dtypes.float32))
    scaled = make("Mul", centred, cast(_spread(op, 1), dtypes.float32))
    return cast(scaled, _optional_dtype(op, "output_dtype", op.type(1).dtype))


def _infer_dynamic(op: Op) -> list[TensorType]:
    return [TensorType(dtypes.uint8, op.type(0).shape), TensorType(dtypes.float32, ()), TensorType(dtypes.uint8, ())]


def _dynamic(op: Op, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The range of the data, made to hold 0, in 255 steps."""
    low, high = np.minimum(x.min(initial=0), 0), np.maximum(x.max(initial=0), 0)
    scale = np.float32((high - low) / np.float32(255)) if high > low else np.float32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return np.clip(np.rint(x / scale) + zero, 0, 255), np.asarray(scale), np.asarray(zero)


def _decompose_dynamic(op: Op) -> tuple[Value, ...]:
    x, none = op.value(0), scalar(0, dtypes.float32)
    low = make("Min", make("ReduceMin", x, None, keepdims=0), none)
    high = make("Max", make("ReduceMax", x, None, keepdims=0), none)
    spread = make("Sub", high, low)
    step = make("Div", spread, scalar(255, dtypes.float32))
    scale = make("Where", make("Equal", spread, none), scalar(1, dtypes.float32), step)
    top = scalar(255, dtypes.float32)
    zero = cast(make("Clip", make("Round", make("Div", make("Neg", low), scale)), none, top), dtypes.uint8)
    return (make("QuantizeLinear", x, scale, zero), scale, zero)[: op.num_outputs]


define("QuantizeLinear", _infer_quantize, _quantize, _decompose_quantize)
define("DequantizeLinear", _infer_dequantize, _dequantize, _decompose_dequantize)
define("DynamicQuantizeLinear", _infer_dynamic, _dynamic, _decompose_dynamic)
