"""A convolution of one tap mixes the channels of each pixel, and an upsampling that repeats pixels leaves the channels alone:
mixed first, there are four times fewer pixels to mix.

Where upsampled channels stand beside others, as in feature pyramids, each has its own part of the weights, and what the one
part gives is added to what the other does.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make, make_node
from redline.ops.layout import channel_axis
from redline.ops.registry import view
from redline.ops.resize import axis_taps
from redline.passes.algebra import operands
from redline.passes.linear import Linear, linear

MOST_FILTERS = 4  # times the upsampled channels: what is mixed first is written, and read again to be added


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _mix_first(node: Node, rewriter: Rewriter) -> Value | None:
    """Conv(Resize(z), W) -> Resize(Conv(z, W)); Conv(Concat(x, Resize(z)), [V W]) -> Conv(x, V) + Resize(Conv(z, W))"""
    mix = linear(node.out)
    if mix is None or not _is_one_tap(node, mix):
        return None
    x = operands(node.out)[0]
    if _is_upsampling(x, mix):
        return _upsampled(x, make_node("Conv", [operands(x)[0], *node.inputs[1:]], node.attrs).out)
    axis = channel_axis(view(node), len(x.shape))
    if x.op != "Concat" or int(x.node.attrs["axis"]) % len(x.shape) != axis:
        return None
    parts = operands(x)
    ends = np.cumsum([shapes.static(part.shape)[axis] for part in parts])
    weighed = list(zip(parts, np.split(mix.weights, ends[:-1], axis=1), strict=True))
    others = [(part, own) for part, own in weighed if not _is_upsampling(part, mix)]
    if not others or len(others) == len(parts):
        return None
    beside = others[0][0] if len(others) == 1 else make("Concat", *(part for part, _ in others), axis=axis)
    total = make_node("Conv", [beside, _joined([own for _, own in others]), *node.inputs[2:]], node.attrs).out
    for part, own in weighed:
        if _is_upsampling(part, mix):
            mixed = make_node("Conv", [operands(part)[0], _joined([own])], node.attrs).out
            total = make("Add", total, _upsampled(part, mixed))
    return total


def _joined(weights: Sequence[np.ndarray]) -> Value:
    """Weights of channels side by side."""
    return constant(np.ascontiguousarray(np.concatenate(weights, axis=1)))


def _is_one_tap(node: Node, mix: Linear) -> bool:
    plain = all(set(node.attrs.get(name, (nothing,))) == {nothing} for name, nothing in (("strides", 1), ("pads", 0)))
    return prod(mix.weights.shape[2:]) == 1 and mix.weights.ndim == 4 and node.attrs.get("group", 1) == 1 and plain


def _is_upsampling(value: Value, mix: Linear) -> bool:
    """Whether each pixel is one of fewer pixels, with channels enough."""
    if value.op != "Resize" or not value.dtype.is_float:
        return False
    small, large = (shapes.static(v.shape) for v in (operands(value)[0], value))
    channels = channel_axis(view(mix.out.node), len(large))
    taps = axis_taps(view(value.node))
    copied = all(each.is_copy and not each.outside.any() and each.axis not in (0, channels) for each in taps)
    return copied and prod(large) > prod(small) and mix.weights.shape[0] <= MOST_FILTERS * large[channels]


def _upsampled(like: Value, mixed: Value) -> Value:
    """``mixed`` with its pixels repeated as ``like``'s are."""
    rank = len(mixed.shape)
    channels = channel_axis(view(like.node), rank)
    pixels = [extent for axis, extent in enumerate(shapes.static(like.shape)) if axis not in (0, channels)]
    wanted = (*(shapes.static((mixed.shape[axis],))[0] for axis in (0, channels)), *pixels)  # images, channels, pixels
    attrs = {name: value for name, value in like.node.attrs.items() if name not in ("axes", "keep_aspect_ratio_policy")}
    return make_node("Resize", [mixed, None, None, constant(np.array(wanted, np.int64))], attrs).out


RULES = (Rule("mix_first", frozenset({"Conv"}), _mix_first),)
