"""Normalisations. Statistics are taken in float32 at least (``stash_type``), whatever the type of the data."""

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.base.shapes import Shape
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import HALF, cast, ints, onnx_dtype, reshaped, scalar, wide


def _epsilon(op: Op) -> float:
    return float(op.attr("epsilon", 1e-5))


def _working(value: Value) -> dtypes.DType:
    """The type that statistics of ``value`` are taken in."""
    return dtypes.float32 if value.dtype in HALF else value.dtype


def _per_channel(value: Value, rank: int) -> Value:
    """[C] as [C, 1...], to broadcast against [N, C, spatial...]."""
    return reshaped(value, (value.shape[0], *(1,) * (rank - 2)))


def _column(vector: np.ndarray, rank: int) -> np.ndarray:
    return wide(vector).reshape(-1, *(1,) * (rank - 2))


def _check_channels(op: Op, *indices: int) -> None:
    shape = op.type(0).shape
    if len(shape) < 2:
        raise ModelError(op.label, f"{op.name} of a tensor of rank {len(shape)}", "it takes [N, C, spatial...]")
    for i in indices:
        if op.type(i).shape != (shape[1],):
            seen = f"input {i} of {op.name} has shape {shapes.text(op.type(i).shape)}"
            raise ModelError(op.label, seen, f"one value a channel: {shape[1]}")


def _standardised(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """(x - mean) / sqrt(variance + epsilon) over ``axes``."""
    centred = x - x.mean(axis=axes, keepdims=True, dtype=np.float64)
    return centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon)


def _moments(x: Value, axes: Value) -> tuple[Value, Value, Value]:
    """x - mean, the mean and the variance along ``axes``."""
    mean = make("ReduceMean", x, axes, keepdims=1)
    centred = make("Sub", x, mean)
    return centred, mean, make("ReduceMean", make("Mul", centred, centred), axes, keepdims=1)


def _standardise(x: Value, axes: Value, epsilon: float) -> tuple[Value, Value, Value]:
    """The standardised values, the mean and 1 / sqrt(variance + epsilon)."""
    centred, mean, variance = _moments(x, axes)
    inverse = make("Reciprocal", make("Sqrt", make("Add", variance, scalar(epsilon, x.dtype))))
    return make("Mul", centred, inverse), mean, inverse


# --- BatchNormalization


def _infer_batch(op: Op) -> list[TensorType]:
    _check_channels(op, 1, 2, 3, 4)
    return [op.type(0), op.type(3), op.type(4)] if op.attr("training_mode", 0) else [op.type(0)]


def _batch(
    op: Op, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, var: np.ndarray
) -> tuple[np.ndarray, ...]:
    x, mean, var = wide(x), wide(mean), wide(var)
    running: tuple[np.ndarray, ...] = ()
    if op.attr("training_mode", 0):
        axes, momentum = (0, *range(2, x.ndim)), float(op.attr("momentum", 0.9))
        seen, spread = x.mean(axis=axes, dtype=np.float64), x.var(axis=axes, dtype=np.float64)
        running = tuple(old * momentum + new * (1 - momentum) for old, new in ((mean, seen), (var, spread)))
        mean, var = seen, spread
    factor = _column(scale, x.ndim) / np.sqrt(_column(var, x.ndim) + _epsilon(op))
    return ((x - _column(mean, x.ndim)) * factor + _column(bias, x.ndim), *running)


def _decompose_batch(op: Op) -> tuple[Value, ...]:
    """x * factor + shift with factor = scale / sqrt(var + epsilon), shift = bias - mean * factor: constants at inference."""
    x = op.value(0)
    dtype, rank = _working(x), len(x.shape)
    wide_x, scale, bias, mean, var = (cast(op.value(i), dtype) for i in range(5))
    running: tuple[Value, ...] = ()
    if op.attr("training_mode", 0):
        axes, momentum = ints((0, *range(2, rank))), float(op.attr("momentum", 0.9))
        _, seen, spread = _moments(wide_x, axes)
        fresh = [reshaped(v, mean.shape) for v in (seen, spread)]
        running = tuple(_blend(old, new, momentum) for old, new in zip((mean, var), fresh, strict=True))
        running = tuple(cast(v, op.type(i).dtype) for i, v in enumerate(running, 3))
        mean, var = fresh
    factor = make("Div", scale, make("Sqrt", make("Add", var, scalar(_epsilon(op), dtype))))
    shift = make("Sub", bias, make("Mul", mean, factor))
    y = make("Add", make("Mul", wide_x, _per_channel(factor, rank)), _per_channel(shift, rank))
    return (cast(y, x.dtype), *running)[: op.num_outputs]


def _blend(old: Value, new: Value, momentum: float) -> Value:
    kept = make("Mul", old, scalar(momentum, old.dtype))
    return make("Add", kept, make("Mul", new, scalar(1 - momentum, old.dtype)))


# --- InstanceNormalization and GroupNormalization


def _infer_channels(op: Op) -> list[TensorType]:
    _check_channels(op, 1, 2)
    return [op.type(0)]


def _instance(op: Op, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    y = _standardised(wide(x), tuple(range(2, x.ndim)), _epsilon(op))
    return y * _column(scale, x.ndim) + _column(bias, x.ndim)


def _decompose_instance(op: Op) -> Value:
    x = op.value(0)
    dtype, rank = _working(x), len(x.shape)
    y, _, _ = _standardise(cast(x, dtype), ints(range(2, rank)), _epsilon(op))
    return cast(_scaled(y, cast(op.value(1), dtype), cast(op.value(2), dtype)), x.dtype)


def _scaled(y: Value, scale: Value, bias: Value) -> Value:
    rank = len(y.shape)
    return make("Add", make("Mul", y, _per_channel(scale, rank)), _per_channel(bias, rank))


def _infer_group(op: Op) -> list[TensorType]:
    _check_channels(op, 1, 2)
    _grouped_shape(op)
    return [op.type(0)]


def _grouped_shape(op: Op) -> Shape:
    """[N, groups, the rest of a group]."""
    n, *rest = op.type(0).shape
    groups, (channels, *spatial) = int(op.attr("num_groups", 0)), shapes.static(tuple(rest), op.label)
    if groups < 1 or channels % groups:
        raise ModelError(op.label, f"{groups} groups of {channels} channels", "num_groups must divide the channels")
    return (n, groups, channels // groups * shapes.size(spatial))


def _group(op: Op, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    grouped = wide(x).reshape(x.shape[0], *_grouped_shape(op)[1:])  # type: ignore[arg-type]
    y = _standardised(grouped, (2,), _epsilon(op)).reshape(x.shape)
    return y * _column(scale, x.ndim) + _column(bias, x.ndim)


def _decompose_group(op: Op) -> Value:
    x = op.value(0)
    dtype = _working(x)
    y, _, _ = _standardise(reshaped(cast(x, dtype), _grouped_shape(op)), ints([2]), _epsilon(op))
    return cast(_scaled(reshaped(y, x.shape), cast(op.value(1), dtype), cast(op.value(2), dtype)), x.dtype)


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
    inverse = 1 / np.sqrt(np.square(x - mean).mean(axis=axes, keepdims=True) + _epsilon(op))
    y = (x - mean) * inverse * wide(scale)
    return (y if bias is None else y + wide(bias)), mean, inverse


def _decompose_layer(op: Op) -> tuple[Value, ...]:
    x = op.value(0)
    dtype = onnx_dtype(op, "stash_type", dtypes.float32)
    y, mean, inverse = _standardise(cast(x, dtype), ints(trailing_axes(op)), _epsilon(op))
    y = make("Mul", cast(y, x.dtype), op.value(1))
    return (make("Add", y, op.value(2)) if op.has(2) else y, mean, inverse)[: op.num_outputs]


def _infer_rms(op: Op) -> list[TensorType]:
    _check_scales(op)
    return [TensorType(op.type(1).dtype, op.type(0).shape)]


def _rms(op: Op, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    x = wide(x)
    return x / np.sqrt(np.square(x).mean(axis=trailing_axes(op), keepdims=True, dtype=np.float64) + _epsilon(op)) * wide(scale)


def _decompose_rms(op: Op) -> Value:
    x = op.value(0)
    dtype = onnx_dtype(op, "stash_type", dtypes.float32)
    wide_x = cast(x, dtype)
    square = make("ReduceMean", make("Mul", wide_x, wide_x), ints(trailing_axes(op)), keepdims=1)
    root = make("Sqrt", make("Add", square, scalar(_epsilon(op), dtype)))
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
    centred, _, variance = _moments(cast(x, _working(x)), ints(_mvn_axes(op)))
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


define("BatchNormalization", _infer_batch, _batch, _decompose_batch)
define("InstanceNormalization", _infer_channels, _instance, _decompose_instance)
define("GroupNormalization", _infer_group, _group, _decompose_group)
define("LayerNormalization", _infer_layer, _layer, _decompose_layer)
define("RMSNormalization", _infer_rms, _rms, _decompose_rms)
define("LpNormalization", _infer_lp, _lp, _decompose_lp)
define("MeanVarianceNormalization", _infer_mvn, _mvn, _decompose_mvn)
define("LRN", _infer_lrn, _lrn, _decompose_lrn)
