"""Pools: MaxPool, AveragePool, LpPool, their global forms, and MaxUnpool."""

import math

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.ir import TensorType, Value, constant
from redline.ops.layout import in_onnx_order, joined_shape, spatial_axes, split_shape
from redline.ops.registry import Op, define, make
from redline.ops.rules import ints, reshaped, scalar, wide
from redline.ops.window import Window, explicit_window, patches, positions


def _infer_pool(op: Op) -> list[TensorType]:
    batch, channels, _ = split_shape(op)
    return [TensorType(op.type(0).dtype, joined_shape(op, batch, channels, explicit_window(op).output))]


def _infer_max_pool(op: Op) -> list[TensorType]:
    (kind,) = _infer_pool(op)
    return [kind, TensorType(dtypes.int64, kind.shape)]


def _window_axes(window: Window) -> tuple[int, ...]:
    return tuple(range(-len(window.kernel), 0))


def _max_pool(op: Op, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest element a window, NaN if it holds one, and its place in the flattened input."""
    x, window = wide(x), explicit_window(op)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    seen = patches(x, window, lowest)
    return seen.max(axis=_window_axes(window)), _max_indices(op, x.shape, seen, window)


def _max_indices(op: Op, shape: tuple[int, ...], seen: np.ndarray, window: Window) -> np.ndarray:
    """First of the largest inside the tensor. ``storage_order`` 1 counts the spatial axes column first."""
    size, rank = shape[2:], len(window.kernel)
    at = seen.reshape(*seen.shape[:-rank], -1).argmax(axis=-1)
    taps = np.unravel_index(at, window.kernel)
    flat, step = np.zeros(at.shape, np.int64), 1
    for axis in range(rank) if op.attr("storage_order", 0) else reversed(range(rank)):
        outputs = np.arange(window.output[axis]).reshape(-1, *(1,) * (rank - 1 - axis))
        flat += positions(window, axis)[np.broadcast_to(outputs, at.shape), taps[axis]] * step
        step *= size[axis]
    planes = np.arange(math.prod(shape[:2])).reshape(*shape[:2], *(1,) * rank)
    return flat + planes * step


def _average_pool(op: Op, x: np.ndarray) -> np.ndarray:
    """The mean a window over what counts: the tensor, with ``count_include_pad`` its declared padding too."""
    x, window = wide(x), explicit_window(op)
    count = np.ones((1,) * len(window.kernel))
    for axis, size in enumerate(x.shape[2:]):
        padded = bool(op.attr("count_include_pad", 0))
        low, high = (-window.pads_begin[axis], size + window.pads_end[axis]) if padded else (0, size)
        at = positions(window, axis)
        inside = ((at >= low) & (at < high)).sum(axis=1)
        count = count * inside.reshape(-1, *(1,) * (len(window.kernel) - 1 - axis))
    return patches(x, window).sum(axis=_window_axes(window), dtype=x.dtype) / count.astype(x.dtype)


def _lp_pool(op: Op, x: np.ndarray) -> np.ndarray:
    window, p = explicit_window(op), int(op.attr("p", 2))
    return (np.abs(patches(wide(x), window)) ** p).sum(axis=_window_axes(window)) ** (1 / p)


def _infer_global(op: Op) -> list[TensorType]:
    batch, channels, spatial = split_shape(op)
    return [TensorType(op.type(0).dtype, joined_shape(op, batch, channels, (1,) * len(spatial)))]


def _axes(x: np.ndarray) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _global_lp(op: Op, x: np.ndarray) -> np.ndarray:
    p = int(op.attr("p", 2))
    return (np.abs(wide(x)) ** p).sum(axis=_axes(x), keepdims=True) ** (1 / p)


def _spatial(op: Op) -> Value:
    return ints(spatial_axes(op, len(op.type(0).shape)))


def _decompose_global_lp(op: Op) -> Value:
    x, p = op.value(0), int(op.attr("p", 2))
    if p in (1, 2):
        return make(f"ReduceL{p}", x, _spatial(op), keepdims=1)
    powers = make("Pow", make("Abs", x), scalar(p, x.dtype))
    return make("Pow", make("ReduceSum", powers, _spatial(op), keepdims=1), scalar(1 / p, x.dtype))


def _unpooled(op: Op) -> tuple[int, ...]:
    """The shape whose flat places ``indices`` counts."""
    x, rank = op.shape(0), len(op.type(0).shape) - 2
    kernel = op.attr("kernel_shape") or ()
    strides, pads = op.attr("strides") or (1,) * rank, op.attr("pads") or (0,) * (2 * rank)
    if rank < 1 or not len(kernel) == len(strides) == len(pads) // 2 == rank:
        raise ModelError(op.label, f"MaxUnpool of a kernel {tuple(kernel)} over {rank} spatial axes", "one extent an axis")
    spatial = [(n - 1) * s - b - e + k for n, k, s, b, e in zip(
        x[2:], kernel, strides, pads[:rank], pads[rank:], strict=True)]  # fmt: skip
    return (*x[:2], *(int(extent) for extent in spatial))


def _infer_unpool(op: Op) -> list[TensorType]:
    shape = op.ints(2) if op.has(2) else _unpooled(op)
    if len(shape) != len(_unpooled(op)) or any(a < b for a, b in zip(shape, _unpooled(op), strict=True)):
        seen = f"output_shape {shapes.text(shape)}"
        raise ModelError(op.label, seen, f"at least {shapes.text(_unpooled(op))} in every axis")
    return [TensorType(op.type(0).dtype, shape)]


def _unpool(op: Op, x: np.ndarray, indices: np.ndarray, output_shape: np.ndarray | None = None) -> np.ndarray:
    shape = _unpooled(op)
    flat = np.zeros(math.prod(shape), x.dtype)
    flat[indices.reshape(-1)] = x.reshape(-1)
    target = shape if output_shape is None else tuple(int(n) for n in output_shape)
    return np.pad(flat.reshape(shape), [(0, t - n) for n, t in zip(shape, target, strict=True)])


def _decompose_unpool(op: Op) -> Value:
    """Zeros, with the values scattered to their flat places."""
    x, shape = op.value(0), _unpooled(op)
    count = shapes.size(op.shape(0))
    zeros = constant(np.zeros(math.prod(shape), x.dtype.numpy))
    flat = make("ScatterElements", zeros, reshaped(op.value(1), (count,)), reshaped(x, (count,)), axis=0)
    whole = reshaped(flat, shape)
    target = op.ints(2) if op.has(2) else shape
    if target == shape:
        return whole
    return make("Pad", whole, ints([0] * len(shape) + [t - n for n, t in zip(shape, target, strict=True)]))


define("MaxPool", _infer_max_pool, in_onnx_order(_max_pool))
define("AveragePool", _infer_pool, in_onnx_order(_average_pool))
define("LpPool", _infer_pool, in_onnx_order(_lp_pool))
define(
    "GlobalAveragePool", _infer_global, in_onnx_order(lambda op, x: wide(x).mean(axis=_axes(x), keepdims=True)),
    lambda op: make("ReduceMean", op.value(0), _spatial(op), keepdims=1),
)  # fmt: skip
define(
    "GlobalMaxPool", _infer_global, in_onnx_order(lambda op, x: wide(x).max(axis=_axes(x), keepdims=True)),
    lambda op: make("ReduceMax", op.value(0), _spatial(op), keepdims=1),
)  # fmt: skip
define("GlobalLpPool", _infer_global, in_onnx_order(_global_lp), _decompose_global_lp)
define("MaxUnpool", _infer_unpool, _unpool, _decompose_unpool, static=(2,))
