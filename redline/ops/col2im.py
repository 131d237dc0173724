"""Col2Im: columns of blocks laid back onto a picture, overlaps added."""

import math

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.base.shapes import StaticShape
from redline.ir import TensorType, Value, constant
from redline.ops.by_parts import by_parts
from redline.ops.registry import Op, define, make
from redline.ops.rules import reshaped


def _blocks(op: Op) -> tuple[StaticShape, dict[str, tuple[int, ...]]]:
    """How many blocks lie along each axis, and the attributes of the transposed convolution that lays them down."""
    image, block = op.ints(1), op.ints(2)
    rank = len(image)
    dilations, strides = (tuple(op.attr(name) or (1,) * rank) for name in ("dilations", "strides"))
    pads = tuple(op.attr("pads") or (0,) * 2 * rank)
    if not len(block) == len(dilations) == len(strides) == len(pads) // 2 == rank or min((*block, *dilations, *strides)) < 1:
        raise ModelError(op.label, f"blocks {block} on a picture {image}", "one extent, stride and dilation an axis")
    counts, extra = [], []
    for axis in range(rank):
        room = image[axis] + pads[axis] + pads[rank + axis] - (block[axis] - 1) * dilations[axis] - 1
        counts.append(room // strides[axis] + 1)
        extra.append(room % strides[axis])
    if min(counts) < 1:
        raise ModelError(op.label, f"blocks {block} on a picture {image}", "the padded picture must hold one")
    attrs = {"dilations": dilations, "strides": strides, "pads": pads, "output_padding": tuple(extra)}
    return tuple(counts), attrs


def _infer(op: Op) -> list[TensorType]:
    counts, _ = _blocks(op)
    shape, taps = op.type(0).shape, math.prod(op.ints(2))
    channels = shapes.static(shape[1:2], op.label)[0] if len(shape) == 3 else 0
    if len(shape) != 3 or channels % taps or shape[2] != math.prod(counts):
        seen = f"columns {shapes.text(shape)} for {shapes.text(counts)} blocks of {taps}"
        raise ModelError(op.label, seen, "allowed: [N, C * elements of a block, blocks]")
    return [TensorType(op.type(0).dtype, (shape[0], channels // taps, *op.ints(1)))]


def _decompose(op: Op) -> Value:
    """A transposed convolution whose weights put each column's element at its own place in the block."""
    counts, attrs = _blocks(op)
    x, block = op.value(0), op.ints(2)
    taps = math.prod(block)
    channels = shapes.static(x.shape[1:2], op.label)[0] // taps
    weights = np.tile(np.eye(taps).reshape(taps, 1, *block), (channels, 1, *(1,) * len(block))).astype(x.dtype.numpy)
    return make("ConvTranspose", reshaped(x, (*x.shape[:2], *counts)), constant(weights), group=channels, **attrs)


define("Col2Im", _infer, by_parts(_decompose), _decompose, static=(1, 2))
