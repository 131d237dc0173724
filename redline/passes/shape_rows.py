"""What works along rows works along the last axis, as its kernels do; what does not is taken apart after all."""

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ir.rewrite import Replacement
from redline.ops import make_node
from redline.ops.nn_norm import trailing_axes
from redline.ops.registry import lookup, view
from redline.ops.rules import reshaped
from redline.passes.algebra import operands


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _softmax(node: Node, rewriter: Rewriter) -> Replacement:
    """Softmax along an inner axis -> reductions, whose vectors run along the last axis"""
    rank = len(node.out.shape)
    return _taken_apart(node) if view(node).axis(-1, rank) != rank - 1 else None


def _normalization(node: Node, rewriter: Rewriter) -> Replacement:
    """Normalization(x, axis) -> Reshape(Normalization(Reshape(x))) over one axis; with statistics as results -> reductions"""
    axes = trailing_axes(view(node))
    if len(node.types) > 1:
        return _taken_apart(node)
    if len(axes) == 1:
        return None
    outer, inner = node.out.shape[: axes[0]], shapes.static(node.out.shape[axes[0] :], node.name)
    length = shapes.size(inner)
    x, *rest = operands(node.out)
    vectors = [_vector(value, inner, length) for value in rest]
    if any(vector is None for vector in vectors):
        return _taken_apart(node)
    attrs = {**node.attrs, "axis": -1}
    new = make_node(node.op, (reshaped(x, (*outer, length)), *vectors), attrs, num_outputs=1)
    return reshaped(new.out, node.out.shape)


def _vector(value: Value, inner: shapes.StaticShape, length: int) -> Value | None:
    """``value`` over the normalised axes as over one; None where it broadcasts along some of them."""
    if value.shape == inner:
        return reshaped(value, (length,))
    return value if value.shape in ((), (1,)) else None


def _taken_apart(node: Node) -> Replacement:
    definition = lookup(node.op, node.name)
    assert definition.decompose is not None, f"{node.op} can be written with reductions"
    result = definition.decompose(view(node))
    return result[: len(node.types)] if isinstance(result, tuple) else result


RULES = (
    Rule("softmax", frozenset({"Softmax", "LogSoftmax"}), _softmax),
    Rule("normalization", frozenset({"LayerNormalization", "RMSNormalization"}), _normalization),
)
