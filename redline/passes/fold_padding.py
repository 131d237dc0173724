"""A Pad before a convolution or a pool becomes the window's own padding."""

import numpy as np

from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ops import make_node
from redline.ops.layout import spatial_axes
from redline.ops.registry import view
from redline.ops.slicing import pad_widths
from redline.ops.window import Window, explicit_window
from redline.passes.algebra import operands
from redline.passes.constants import splat
from redline.passes.ranges import is_nonnegative


def run(graph: Graph) -> Graph:
    return rewrite(graph, [Rule("fold_padding", frozenset(FILLS), _fold)])[0]


def _fold(node: Node, rewriter: Rewriter) -> Value | None:
    """Window(Pad(x)) -> Window(x) with more padding, where the pad's fill is what the window reads beyond its input"""
    padded = operands(node.out)[0]
    if padded.op != "Pad" or padded.node.attrs.get("mode", "constant") != "constant" or len(node.types) != 1:
        return None
    widths, axes = pad_widths(view(padded.node)), spatial_axes(view(node), len(padded.shape))
    if any((before < 0 or after < 0) if i in axes else (before or after) for i, (before, after) in enumerate(widths)):
        return None
    window = explicit_window(view(node))
    before, after = zip(*(widths[axis] for axis in axes), strict=True)
    fill = splat(padded.node.inputs[2]) if len(padded.node.inputs) > 2 and padded.node.inputs[2] is not None else 0
    changed = FILLS[node.op](node, window, fill, max(before + after))
    if changed is None or node.attrs.get("ceil_mode", 0):
        return None
    pads = tuple(np.add((*window.pads_begin, *window.pads_end), (*before, *after)).tolist())
    attrs = {**node.attrs, "pads": pads, "auto_pad": "NOTSET", **changed}
    return make_node(node.op, (operands(padded)[0], *node.inputs[1:]), attrs, num_outputs=1).out


def _conv(node: Node, window: Window, fill: float | int | None, width: int) -> dict[str, int] | None:
    """Convolutions pad with zeros."""
    return {} if fill == 0 else None


def _average(node: Node, window: Window, fill: float | int | None, width: int) -> dict[str, int] | None:
    """The pad's zeros are counted, so the window's own, if it has any, must be too."""
    counts_all = bool(node.attrs.get("count_include_pad", 0)) or not any(window.pads_begin + window.pads_end)
    return {"count_include_pad": 1} if fill == 0 and counts_all else None


def _max(node: Node, window: Window, fill: float | int | None, width: int) -> dict[str, int] | None:
    """A maximum ignores -inf, and 0 beside what is not negative, of which every window must then see something."""
    padded = operands(node.out)[0]
    sees_some = all(d == 1 and width < k for k, d in zip(window.kernel, window.dilations, strict=True))
    is_ignored = fill == -np.inf or (fill == 0 and sees_some and is_nonnegative(operands(padded)[0]))
    return {} if is_ignored and not any(window.pads_begin + window.pads_end) else None


FILLS = {"Conv": _conv, "AveragePool": _average, "MaxPool": _max}
