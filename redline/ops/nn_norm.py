"""Normalisations over axes: LayerNormalization, RMSNormalization, LpNormalization, MeanVarianceNormalization and LRN."""

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.ir import TensorType, Value
from redline.ops.moments import epsilon_of, moments, standardise, working_type
from redline.ops.registry import Op, define, make
from redline.ops.rules import cast, ints, onnx_dtype, scalar, wide

# --- LayerNormalization and RMSNormalization: over the trailing axes from ``axis``


def trailing_axes(op: Op) -> tuple[int, ...]:
    rank = len(op.type(0).shape)
    return tuple(range(op.axis(-1, rank), rank))


def _check_scales(op: Op) -> None:
    x = op.type(0).shape
    for i in range(1, len(op.inputs)):
        if op.has(i) and shapes.broadcast(x, op.type(i).shape) != x:
            seen = f"input {i} of shape {shapes.text(op.type(i).shape)}"
            raise ModelError(op.label, seen, f"broadcastable to {shapes.text(x)}")


def _infer_layer(op: Op) -> list[TensorType]:
    _check_scales(op)
    x, axes = op.type(0), trailing_axes(op)
    kept = (*x.shape[: axes[0]], *(1 for _ in axes))
    statistics = TensorType(onnx_dtype(op, "stash_type", dtypes.float32), kept)
    return [x, statistics, statistics]


def _layer(op: Op, x: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    axes, x = trailing_axes(op), wide(x)
    mean = x.mean(axis=axes, keepdims=True, dtype=np.float64)
    inverse = 1 / np.sqrt(np.square(x - mean).mean(axis=axes, keepdims=True) + epsilon_of(op))
    y = (x - mean) * inverse * wide(scale)
    return (y if bias is None else y + wide(bias)), mean, inverse


def _decompose_layer(op: Op) -> tuple[Value, ...]:
    x = op.value(0)
    dtype = onnx_dtype(op, "stash_type", dtypes.float32)
    y, mean, inverse = standardise(cast(x, dtype), ints(trailing_axes(op)), epsilon_of(op))
    y = make("Mul", cast(y, x.dtype), op.value(1))
    return (make("Add", y, op.value(2)) if op.has(2) else y, mean, inverse)[: op.num_outputs]


def _infer_rms(op: Op) -> list[TensorType]:
    _check_scales(op)
    return [TensorType(op.type(1).dtype, op.type(0).shape)]


def _rms(op: Op, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    x = wide(x)
    mean = np.square(x).mean(axis=trailing_axes(op), keepdims=True, dtype=np.float64)
    return x / np.sqrt(mean + epsilon_of(op)) * wide(scale)


def _decompose_rms(op: Op) -> Value:
    x = op.value(0)
    dtype = onnx_dtype(op, "stash_type", dtypes.float32)
    wide_x = cast(x, dtype)
    square = make("ReduceMean", make("Mul", wide_x, wide_x), ints(trailing_axes(op)), keepdims=1)
    root = make("Sqrt", make("Add", square, scalar(epsilon_of(op), dtype)))
    return make("Mul", cast(make("Div", wide_x, root), op.type(1).dtype), op.value(1))


# --- LpNormalization, MeanVarianceNormalization, LRN


def _lp_axis(op: Op) -> int:
    if op.attr("p", 2) not in (1, 2):
        raise ModelError(op.label, f"LpNormalization with p={op.attr('p')}", "allowed: 1 and 2")
    return op.axis(-1, len(op.type(0).shape))


def _infer_lp(op: Op) -> list[TensorType]:
    _lp_axis(op)
    return [op.type(0)]


def _lp(op: Op, x: np.ndarray) -> np.ndarray:
    x, p = wide(x), int(op.attr("p", 2))
    norm = (np.abs(x) ** p).sum(axis=_lp_axis(op), keepdims=True, dtype=np.float64) ** (1 / p)
    return np.where(norm == 0, 0, x / norm)


def _decompose_lp(op: Op) -> Value:
    x = op.value(0)
    norm = make(f"ReduceL{op.attr('p', 2)}", x, ints([_lp_axis(op)]), keepdims=1)
    zero = scalar(0, x.dtype)
    return make("Where", make("Equal", norm, zero), zero, make("Div", x, norm))


_MVN_EPSILON = 1e-9  # added to the standard deviation, by the standard's definition


def _mvn_axes(op: Op) -> tuple[int, ...]:
    rank = len(op.type(0).shape)
    return tuple(shapes.axis_index(int(a), rank, op.label) for a in op.attr("axes", (0, 2, 3)))


def _infer_mvn(op: Op) -> list[TensorType]:
    _mvn_axes(op)
    return [op.type(0)]


def _mvn(op: Op, x: np.ndarray) -> np.ndarray:
    x, axes = wide(x), _mvn_axes(op)
    centred = x - x.mean(axis=axes, keepdims=True, dtype=np.float64)
    return centred / (np.sqrt(np.square(centred).mean(axis=axes, keepdims=True)) + _MVN_EPSILON)


def _decompose_mvn(op: Op) -> Value:
    x = op.value(0)
    centred, _, variance = moments(cast(x, working_type(x)), ints(_mvn_axes(op)))
    deviation = make("Add", make("Sqrt", variance), scalar(_MVN_EPSILON, variance.dtype))
    return cast(make("Div", centred, deviation), x.dtype)


def _lrn_reach(op: Op) -> tuple[int, int]:
    """How many channels before and after its own an element's sum takes in."""
    size = int(op.attr("size", 0))
    if size < 1 or len(op.type(0).shape) < 2:
        raise ModelError(op.label, f"LRN of size {size}", "size from 1, data [N, C, spatial...]")
    return (size - 1) // 2, size // 2


def _infer_lrn(op: Op) -> list[TensorType]:
    _lrn_reach(op)
    return [op.type(0)]


def _lrn(op: Op, x: np.ndarray) -> np.ndarray:
    x, reach, size = wide(x), _lrn_reach(op), int(op.attr("size", 0))
    squares = np.pad(np.square(x), [(0, 0), reach] + [(0, 0)] * (x.ndim - 2))
    total = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(axis=-1)
    return x / (op.attr("bias", 1.0) + op.attr("alpha", 1e-4) / size * total) ** op.attr("beta", 0.75)


def _decompose_lrn(op: Op) -> Value:
    """The sum over neighbouring channels as the sum of shifted slices of the padded squares."""
    x, (before, after), size = op.value(0), _lrn_reach(op), int(op.attr("size", 0))
    channels = shapes.static(x.shape[1:2], op.label)[0]
    pads = [0] * 2 * len(x.shape)
    pads[1], pads[len(x.shape) + 1] = before, after
    squares = make("Pad", make("Mul", x, x), ints(pads))
    shifted = [make("Slice", squares, ints([i]), ints([i + channels]), ints([1])) for i in range(size)]
    total = make("Sum", *shifted)
    base = make("Mul", total, scalar(op.attr("alpha", 1e-4) / size, x.dtype))
    base = make("Add", base, scalar(op.attr("bias", 1.0), x.dtype))
    return make("Div", x, make("Pow", base, scalar(op.attr("beta", 0.75), x.dtype)))


define("LayerNormalization", _infer_layer, _layer, _decompose_layer)
define("RMSNormalization", _infer_rms, _rms, _decompose_rms)
define("LpNormalization", _infer_lp, _lp, _decompose_lp)
define("MeanVarianceNormalization", _infer_mvn, _mvn, _decompose_mvn)
define("LRN", _infer_lrn, _lrn, _decompose_lrn)
