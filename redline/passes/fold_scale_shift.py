"""Scales and shifts by constants around convolutions and matrix products go into weights and bias.

A BatchNormalization is such a pair once it is decomposed.
"""

from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make
from redline.passes.algebra import operands
from redline.passes.constants import like
from redline.passes.linear import Linear, linear, per_channel


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _only_read_by(value: Value, reader: Node, rewriter: Rewriter) -> Linear | None:
    """``value`` as a Linear that ``reader`` alone reads, and leaves in its shape."""
    return linear(value) if rewriter.uses(value) == 1 and value.type == reader.out.type else None


def _scale(node: Node, rewriter: Rewriter) -> Value | None:
    """Linear(x, W, b) * c -> Linear(x, c W, c b)"""
    x, c = operands(node.out)
    found = _only_read_by(x, node, rewriter)
    factor = None if found is None else per_channel(c, x, found.axis)
    return None if found is None or factor is None else found.scaled(factor)


def _shift(node: Node, rewriter: Rewriter) -> Value | None:
    """Conv(x, W, b) + c -> Conv(x, W, b + c)"""
    x, c = operands(node.out)
    found = _only_read_by(x, node, rewriter) if x.op != "MatMul" else None
    addend = None if found is None else per_channel(c, x, found.axis)
    return None if found is None or addend is None else found.shifted(addend)


def _scale_of_sum(node: Node, rewriter: Rewriter) -> Value | None:
    """(MatMul(x, W) + b) * c -> MatMul(x, c W) + c b"""
    total, c = operands(node.out)
    if total.op != "Add" or rewriter.uses(total) != 1 or total.type != node.out.type:
        return None
    product, b = operands(total)
    found = _only_read_by(product, total.node, rewriter)
    if found is None:
        return None
    factor, bias = per_channel(c, total, found.axis), per_channel(b, total, found.axis)
    if factor is None or bias is None:
        return None
    return make("Add", found.scaled(factor), constant(like(bias * factor, b)))


def _scaled_input(node: Node, rewriter: Rewriter) -> Value | None:
    """MatMul(x * c, W) -> MatMul(x, c W) where the product serves nothing else"""
    scaled, _ = operands(node.out)
    found = linear(node.out)
    if found is None or scaled.op != "Mul" or rewriter.uses(scaled) != 1:
        return None
    x, c = operands(scaled)
    factor = per_channel(c, scaled, len(scaled.shape) - 1) if x.type == scaled.type else None
    if factor is None:
        return None
    return make("MatMul", x, constant(like(found.weights * factor.reshape(-1, 1), x)))


RULES = (
    Rule("scale", frozenset({"Mul"}), _scale),
    Rule("shift", frozenset({"Add"}), _shift),
    Rule("scale_of_sum", frozenset({"Mul"}), _scale_of_sum),
    Rule("scaled_input", frozenset({"MatMul"}), _scaled_input),
)
