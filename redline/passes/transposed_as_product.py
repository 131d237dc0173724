"""A transposed convolution of few filters whose kernels lie side by side is one product, and its results change places.

Lowering computes each place within a kernel by itself, which reads the input as often as a kernel has places; with one filter,
as behind a mask, fifteen of sixteen lanes have nothing to do besides. Many filters are written in place that way.
"""

import numpy as np

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make
from redline.ops.registry import view
from redline.ops.window import explicit_window
from redline.passes.algebra import operands

FEW = 16  # filters times places within a kernel


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _as_product(node: Node, rewriter: Rewriter) -> Value | None:
    """ConvTranspose(x, W, b) -> DepthToSpace(Conv(x, W'))"""
    x, weights, *biases = operands(node.out)
    array = weights.array
    if array is None or array.ndim != 4 or not x.dtype.is_float or int(node.attrs.get("group", 1)) != 1:
        return None
    added = [bias.array for bias in biases if bias.array is not None]
    if len(added) < len(biases):
        return None
    channels, filters, size, _ = array.shape
    window = explicit_window(view(node))
    side_by_side = window.kernel == window.strides == (size, size) and window.dilations == (1, 1)
    wanted = tuple(size * extent for extent in shapes.static(x.shape)[2:])
    whole = not any((*window.pads_begin, *window.pads_end)) and window.output == wanted
    if not side_by_side or not whole or size == 1 or filters * size * size > FEW:
        return None
    taps = constant(np.ascontiguousarray(array.reshape(channels, -1).T)[..., None, None])
    repeated = [constant(np.repeat(bias, size * size)) for bias in added]
    return make("DepthToSpace", make("Conv", x, taps, *repeated), blocksize=size, mode="CRD")


RULES = (Rule("as_product", frozenset({"ConvTranspose"}), _as_product),)
