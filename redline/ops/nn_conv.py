"""Convolutions: Conv, ConvTranspose, ConvInteger and DeformConv. Weights stay in ONNX order whatever the data's layout."""

import math
from dataclasses import replace

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.ir import TensorType, Value
from redline.ops.layout import in_onnx_order, joined_shape, split_shape
from redline.ops.registry import Op, define, make
from redline.ops.rules import cast, reshaped, wide
from redline.ops.sample import bilinear
from redline.ops.window import Window, explicit_window, patches, positions


def conv_type(op: Op, weights: int, dtype: dtypes.DType) -> list[TensorType]:
    """The output of a convolution whose weights [M, C/group, kernel...] are input ``weights``."""
    batch, channels, _ = split_shape(op)
    w, group = op.shape(weights), int(op.attr("group", 1))
    if len(w) != len(op.type(0).shape) or group < 1 or channels != w[1] * group or w[0] % group:
        seen = f"weights {shapes.text(w)} in {group} groups over data {shapes.text(op.type(0).shape)}"
        raise ModelError(op.label, seen, "the weights are [M, C/group, kernel...], M a multiple of group")
    return [TensorType(dtype, joined_shape(op, batch, w[0], explicit_window(op).output))]


def convolve(x: np.ndarray, w: np.ndarray, group: int, window: Window) -> np.ndarray:
    """x [N, C, spatial...] by w [M, C/group, kernel...] as a matrix product over unfolded windows."""
    n, m, depth = x.shape[0], w.shape[0], math.prod(w.shape[1:])
    rank = len(window.kernel)
    seen = patches(x, window)
    seen = seen.reshape(n, group, x.shape[1] // group, *seen.shape[2:])
    order = (0, 1, 2, *range(3 + rank, 3 + 2 * rank), *range(3, 3 + rank))
    columns = seen.transpose(order).reshape(n, group, depth, math.prod(window.output))
    return (w.reshape(1, group, m // group, depth) @ columns).reshape(n, m, *window.output)


def per_channel(vector: np.ndarray, rank: int) -> np.ndarray:
    """[C] as [1, C, 1...] of ``rank`` axes."""
    return vector.reshape(1, -1, *(1,) * (rank - 2))


def _check_bias(op: Op, channels: int) -> None:
    if op.has(2) and op.type(2).shape != (channels,):
        raise ModelError(op.label, f"a bias of shape {shapes.text(op.type(2).shape)}", f"the output has {channels} channels")


def _infer_conv(op: Op) -> list[TensorType]:
    _check_bias(op, op.shape(1)[0] if op.shape(1) else 0)
    return conv_type(op, 1, op.type(0).dtype)


def _conv(op: Op, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    y = convolve(wide(x), wide(w), int(op.attr("group", 1)), explicit_window(op))
    return y if bias is None else y + per_channel(wide(bias), y.ndim)


def _infer_transpose(op: Op) -> list[TensorType]:
    batch, channels, _ = split_shape(op)
    w, group = op.shape(1), int(op.attr("group", 1))
    if len(w) != len(op.type(0).shape) or group < 1 or channels != w[0] or w[0] % group:
        seen = f"weights {shapes.text(w)} in {group} groups over data {shapes.text(op.type(0).shape)}"
        raise ModelError(op.label, seen, "the weights are [C, M/group, kernel...], C a multiple of group")
    _check_bias(op, w[1] * group)
    return [TensorType(op.type(0).dtype, joined_shape(op, batch, w[1] * group, explicit_window(op).output))]


def _conv_transpose(op: Op, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Every input element adds its weighted kernel to the output it stands over."""
    x, w, group, window = wide(x), wide(w), int(op.attr("group", 1)), explicit_window(op)
    n, size = x.shape[0], x.shape[2:]
    columns = x.reshape(n, group, w.shape[0] // group, math.prod(size))
    spans = [max((i - 1) * s + e, o + b) for i, s, e, o, b in zip(
        size, window.strides, window.extents, window.output, window.pads_begin, strict=True)]  # fmt: skip
    full = np.zeros((n, w.shape[1] * group, *spans), x.dtype)
    taps = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    for at in np.ndindex(*window.kernel):
        part = np.moveaxis(taps[(..., *at)], 1, 2) @ columns
        where = [slice(k * d, k * d + (i - 1) * s + 1, s) for k, d, i, s in zip(
            at, window.dilations, size, window.strides, strict=True)]  # fmt: skip
        full[(slice(None), slice(None), *where)] += part.reshape(n, -1, *size)
    cut = [slice(b, b + o) for b, o in zip(window.pads_begin, window.output, strict=True)]
    y = full[(slice(None), slice(None), *cut)]
    return y if bias is None else y + per_channel(wide(bias), y.ndim)


def sum_type(op: Op) -> dtypes.DType:
    """The type in which ConvInteger and MatMulInteger sum: int32 for bytes, and (ours) float32 for floats of 8 bits."""
    return dtypes.float32 if op.type(0).dtype.is_float else dtypes.int32


def summed(op: Op, sums: np.ndarray) -> np.ndarray:
    """float64 sums in that type."""
    return sums.astype(np.float32) if op.type(0).dtype.is_float else sums.astype(np.int64).astype(np.int32)


def _infer_conv_integer(op: Op) -> list[TensorType]:
    return conv_type(op, 1, sum_type(op))


def _conv_integer(
    op: Op, x: np.ndarray, w: np.ndarray, x_zero: np.ndarray | None = None, w_zero: np.ndarray | None = None
) -> np.ndarray:
    """Products of bytes and their sums are exact in float64. ``pad_value`` (ours) stands outside x, 0 being its zero point."""
    x = x.astype(np.float64) - (0 if x_zero is None else x_zero.astype(np.float64))
    window = explicit_window(op)
    if op.attr("pad_value", 0):
        pads = list(zip(window.pads_begin, window.pads_end, strict=True))
        x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=op.attr("pad_value"))
        window = replace(window, pads_begin=(0,) * len(pads), pads_end=(0,) * len(pads))
    w = w.astype(np.float64)
    if w_zero is not None:
        w = w - w_zero.astype(np.float64).reshape(-1, *(1,) * (w.ndim - 1))
    return summed(op, convolve(x, w, int(op.attr("group", 1)), window))


def centred(op: Op, i: int, zero: int, shape: tuple[int, ...] | None = None) -> Value:
    """Input ``i`` less its zero point (input ``zero``, reshaped to ``shape``), in the type of the sums."""
    value = cast(op.value(i), sum_type(op))
    if not op.has(zero):
        return value
    point = cast(op.value(zero), value.dtype)
    return make("Sub", value, point if shape is None else reshaped(point, shape))


def _decompose_conv_integer(op: Op) -> Value:
    rank = len(op.shape(1))
    w_zero = (-1, *(1,) * (rank - 1)) if op.has(3) and op.type(3).shape else None
    if w_zero is not None:
        w_zero = (op.shape(3)[0], *w_zero[1:])
    x = centred(op, 0, 2, () if op.has(2) else None)
    return make("Conv", x, centred(op, 1, 3, w_zero), **op.attrs)


def _infer_deform_conv(op: Op) -> list[TensorType]:
    (kind,) = conv_type(op, 1, op.type(0).dtype)
    if len(kind.shape) != 4:
        raise ModelError(op.label, f"DeformConv over {len(kind.shape) - 2} spatial axes", "allowed: 2")
    return [kind]


def _deform_conv(
    op: Op, x: np.ndarray, w: np.ndarray, offset: np.ndarray, bias: np.ndarray | None = None, mask: np.ndarray | None = None
) -> np.ndarray:
    """A convolution whose every tap reads, bilinearly, at its place plus an offset of its own."""
    x, w, offset, window = wide(x), wide(w), wide(offset), explicit_window(op)
    n, c = x.shape[:2]
    groups, group = int(op.attr("offset_group", 1)), int(op.attr("group", 1))
    kernel, output = window.kernel, window.output
    offset = offset.reshape(n, groups, *kernel, 2, *output)
    rows = positions(window, 0).T[:, None, :, None] + offset[:, :, :, :, 0]
    cols = positions(window, 1).T[None, :, None, :] + offset[:, :, :, :, 1]
    taps = np.stack([bilinear(x[i].reshape(groups, c // groups, *x.shape[2:]), rows[i], cols[i]) for i in range(n)])
    if mask is not None:
        taps = taps * wide(mask).reshape(n, groups, 1, *kernel, *output)
    columns = taps.reshape(n, group, math.prod(w.shape[1:]), math.prod(output))
    y = (w.reshape(1, group, w.shape[0] // group, -1) @ columns).reshape(n, w.shape[0], *output)
    return y if bias is None else y + per_channel(wide(bias), 4)


define("Conv", _infer_conv, in_onnx_order(_conv))
define("ConvTranspose", _infer_transpose, in_onnx_order(_conv_transpose))
define("ConvInteger", _infer_conv_integer, in_onnx_order(_conv_integer), _decompose_conv_integer)
define("DeformConv", _infer_deform_conv, _deform_conv)
