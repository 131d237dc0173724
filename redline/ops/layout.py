"""The two orders of image tensors: ONNX's [N, C, spatial...] and, with ``layout="NHWC"``, [N, spatial..., C]."""

from collections.abc import Callable
from typing import Any

import numpy as np

from redline.base.errors import ModelError
from redline.base.shapes import Dim, Shape
from redline.ops.registry import Op, Reference

CHANNELS_LAST = "NHWC"


def is_channels_last(op: Op) -> bool:
    return op.attr("layout", "NCHW") == CHANNELS_LAST


def channel_axis(op: Op, rank: int) -> int:
    return rank - 1 if is_channels_last(op) else 1


def spatial_axes(op: Op, rank: int) -> tuple[int, ...]:
    """The axes that are neither batch nor channels."""
    return tuple(range(1, rank - 1)) if is_channels_last(op) else tuple(range(2, rank))


def split_shape(op: Op, i: int = 0) -> tuple[Dim, Dim, Shape]:
    """Input ``i``'s batch, channels and spatial extents. Raises ModelError for a rank below 2."""
    shape = op.type(i).shape
    if len(shape) < 2:
        raise ModelError(op.label, f"{op.name} of a tensor of rank {len(shape)}", "it takes [N, C, spatial...]")
    return shape[0], shape[channel_axis(op, len(shape))], tuple(shape[a] for a in spatial_axes(op, len(shape)))


def joined_shape(op: Op, batch: Dim, channels: Dim, spatial: Shape) -> Shape:
    return (batch, *spatial, channels) if is_channels_last(op) else (batch, channels, *spatial)


def in_onnx_order(function: Callable[..., Any]) -> Reference:
    """``function(op, x, *rest)``, written for [N, C, spatial...], made to honour the op's layout in x and its results."""

    def reference(op: Op, x: np.ndarray, *rest: np.ndarray | None) -> Any:
        if not is_channels_last(op):
            return function(op, x, *rest)
        result = function(op, np.moveaxis(x, -1, 1), *rest)
        if isinstance(result, tuple):
            return tuple(np.moveaxis(array, 1, -1) for array in result)
        return np.moveaxis(result, 1, -1)

    return reference
