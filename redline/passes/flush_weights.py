"""Weights below the smallest normal number become zero.

Training leaves them in channels that it gave up. A processor multiplies them by microcode, a hundred times as slowly, and what
they add is below 1.2e-38 times the largest input: nothing that a sum of float32 would keep.
"""

import ml_dtypes
import numpy as np

from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite

PRODUCTS = frozenset({"Conv", "ConvTranspose", "MatMul"})
WEIGHTS = 1  # the input


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _flush(node: Node, rewriter: Rewriter) -> Value | None:
    """Product(x, W) -> Product(x, W with zeros)"""
    weights = node.inputs[WEIGHTS]
    if weights is None or weights.array is None or not weights.dtype.is_float:
        return None
    array = weights.array
    tiny = (array != 0) & (np.abs(array) < ml_dtypes.finfo(array.dtype).smallest_normal)
    if not tiny.any():
        return None
    flushed = constant(np.where(tiny, array.dtype.type(0), array), weights.node.name)
    return node.with_inputs((node.inputs[0], flushed, *node.inputs[WEIGHTS + 1 :])).out


RULES = (Rule("flush", PRODUCTS, _flush),)
