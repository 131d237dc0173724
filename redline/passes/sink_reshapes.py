"""Reshapes and Expands move behind elementwise operators: these then stand beside the product or convolution that they can
join, or compute what is repeated once."""

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ops import make, make_node
from redline.ops.registry import lookup
from redline.ops.rules import ints, reshaped
from redline.passes.algebra import operands


def run(graph: Graph) -> Graph:
    return rewrite(graph, [Rule("elementwise", frozenset(), _elementwise)])[0]


def _elementwise(node: Node, rewriter: Rewriter) -> Value | None:
    """f(Reshape(x), number) -> Reshape(f(x, number));  f(Expand(x), number) -> Expand(f(x, number))"""
    definition = lookup(node.op) if node.inputs else None
    if definition is None or not definition.elementwise or len(node.types) != 1 or node.op == "Cast":
        return None
    moved = [value for value in operands(node.out) if not _is_number(value)]
    if len(moved) != 1 or moved[0].op not in ("Reshape", "Expand"):
        return None
    if rewriter.uses(moved[0]) != 1 or moved[0].shape != node.out.shape:
        return None
    source = operands(moved[0])[0]
    if not shapes.is_static(source.shape):
        return None
    inputs = [source if value == moved[0] else value for value in node.inputs]
    inner = make_node(node.op, inputs, node.attrs, num_outputs=1).out
    if moved[0].op == "Reshape":
        return reshaped(inner, node.out.shape)
    return make("Expand", inner, ints(shapes.static(node.out.shape)))


def _is_number(value: Value) -> bool:
    return value.array is not None and value.array.size == 1 and len(value.shape) <= 1
