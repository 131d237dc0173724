"""Normalisations with one scale and bias a channel: BatchNormalization, InstanceNormalization, GroupNormalization."""

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.base.shapes import Shape
from redline.ir import TensorType, Value
from redline.ops.moments import epsilon_of, moments, standardise, working_type
from redline.ops.registry import Op, define, make
from redline.ops.rules import cast, ints, reshaped, scalar, wide


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
    factor = _column(scale, x.ndim) / np.sqrt(_column(var, x.ndim) + epsilon_of(op))
    return ((x - _column(mean, x.ndim)) * factor + _column(bias, x.ndim), *running)


def _decompose_batch(op: Op) -> tuple[Value, ...]:
    """x * factor + shift with factor = scale / sqrt(var + epsilon), shift = bias - mean * factor: constants at inference."""
    x = op.value(0)
    dtype, rank = working_type(x), len(x.shape)
    wide_x, scale, bias, mean, var = (cast(op.value(i), dtype) for i in range(5))
    running: tuple[Value, ...] = ()
    if op.attr("training_mode", 0):
        axes, momentum = ints((0, *range(2, rank))), float(op.attr("momentum", 0.9))
        _, seen, spread = moments(wide_x, axes)
        fresh = [reshaped(v, mean.shape) for v in (seen, spread)]
        running = tuple(_blend(old, new, momentum) for old, new in zip((mean, var), fresh, strict=True))
        running = tuple(cast(v, op.type(i).dtype) for i, v in enumerate(running, 3))
        mean, var = fresh
    factor = make("Div", scale, make("Sqrt", make("Add", var, scalar(epsilon_of(op), dtype))))
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
    y = _standardised(wide(x), tuple(range(2, x.ndim)), epsilon_of(op))
    return y * _column(scale, x.ndim) + _column(bias, x.ndim)


def _decompose_instance(op: Op) -> Value:
    x = op.value(0)
    dtype, rank = working_type(x), len(x.shape)
    y, _, _ = standardise(cast(x, dtype), ints(range(2, rank)), epsilon_of(op))
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
    y = _standardised(grouped, (2,), epsilon_of(op)).reshape(x.shape)
    return y * _column(scale, x.ndim) + _column(bias, x.ndim)


def _decompose_group(op: Op) -> Value:
    x = op.value(0)
    dtype = working_type(x)
    y, _, _ = standardise(reshaped(cast(x, dtype), _grouped_shape(op)), ints([2]), epsilon_of(op))
    return cast(_scaled(reshaped(y, x.shape), cast(op.value(1), dtype), cast(op.value(2), dtype)), x.dtype)


define("BatchNormalization", _infer_batch, _batch, _decompose_batch)
define("InstanceNormalization", _infer_channels, _instance, _decompose_instance)
define("GroupNormalization", _infer_group, _group, _decompose_group)
