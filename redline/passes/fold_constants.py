"""What depends on constants only is computed now, and so is the shape of anything whose shape is known."""

import numpy as np

from redline.base import shapes
from redline.ir import INPUT, Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops.registry import evaluate
from redline.passes.constants import is_constant

# A quantised weight is what an engine stores, so it is not turned back into floats.
KEPT = frozenset({INPUT, "Constant", "DequantizeLinear"})
MAX_GROWTH, MAX_GROWN_BYTES = 16, 1 << 20


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _num_bytes(values: list[Value]) -> int:
    return sum(shapes.size(shapes.static(v.shape)) * v.dtype.size for v in values)


def _fold(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
    """op(constants) -> constants, unless a small one would become a large one (an Expand, a ConstantOfShape)."""
    inputs = [v for v in node.inputs if v is not None]
    if node.op in KEPT or not inputs or not all(map(is_constant, inputs)):
        return None
    after = _num_bytes(list(node.outputs()))
    if after > MAX_GROWN_BYTES and after > MAX_GROWTH * _num_bytes(inputs):
        return None
    arrays = evaluate(node, [None if v is None else v.array for v in node.inputs])
    return tuple(constant(np.asarray(array, order="C"), node.name) for array in arrays)


def _shape(node: Node, rewriter: Rewriter) -> Value | None:
    """Shape(x), Size(x) -> constant"""
    (x,) = node.inputs
    if x is None or not shapes.is_static(x.shape):
        return None
    (array,) = evaluate(node, [np.broadcast_to(np.zeros((), x.dtype.numpy), shapes.static(x.shape))])
    return constant(array, node.name)


RULES = (Rule("fold_shape", frozenset({"Shape", "Size"}), _shape), Rule("fold_constants", frozenset(), _fold))
