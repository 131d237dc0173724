"""Normalisations and Softmax spelt out as reductions and arithmetic become one node again.

They are found after simplify_arithmetic: squares are Mul(d, d), reciprocal roots Reciprocal(Sqrt(v)), and equal
subexpressions are one. Scale and bias are taken in afterwards, one rule each.
"""

from collections.abc import Sequence

import numpy as np

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make, make_node
from redline.ops.reduce import reduced_axes
from redline.ops.registry import view
from redline.ops.rules import transposed
from redline.passes.algebra import operands
from redline.passes.constants import number, splat

LAYER, RMS = "LayerNormalization", "RMSNormalization"
MAX_EPSILON = 0.1


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def take_scale_and_bias(graph: Graph) -> Graph:
    """Only the last step: for multiplications and additions that have come beside a normalisation since."""
    return rewrite(graph, TAKE_SCALE_AND_BIAS)[0]


def _reduction(value: Value, op: str) -> tuple[Value, tuple[int, ...]] | None:
    """What a Reduce node that keeps its axes reduces, and those axes."""
    if value.op != op or not value.node.attrs.get("keepdims", 1):
        return None
    return operands(value)[0], reduced_axes(view(value.node))


def _root_mean_square(deviation: Value) -> tuple[Value, tuple[int, ...], float] | None:
    """The x, axes and epsilon of Sqrt(ReduceMean(x * x) + epsilon)."""
    inside = operands(deviation)[0] if deviation.op == "Sqrt" else None
    if inside is None or inside.op != "Add":
        return None
    variance, shift = operands(inside)
    epsilon, mean = number(shift), _reduction(variance, "ReduceMean")
    if epsilon is None or not 0 <= epsilon <= MAX_EPSILON or mean is None or mean[0].op != "Mul":
        return None
    a, b = operands(mean[0])
    return (a, mean[1], epsilon) if a == b else None


def _centred(value: Value, axes: tuple[int, ...]) -> Value | None:
    """The x of x - ReduceMean(x) over ``axes``."""
    if value.op != "Sub":
        return None
    x, mean = operands(value)
    return x if _reduction(mean, "ReduceMean") == (x, axes) else None


def _same(a: Value, b: Value) -> bool:
    """Whether both are one value, or one difference that a rule has written twice."""
    return a == b or (a.op == b.op == "Sub" and operands(a) == operands(b))


def _standardised(numerator: Value, deviation: Value) -> Value | None:
    """(x - mean x) / sqrt(mean (x - mean x)^2 + e) -> LayerNormalization(x);  x / sqrt(mean x^2 + e) -> RMSNormalization(x)"""
    found = _root_mean_square(deviation)
    if found is None or not _same(found[0], numerator) or not shapes.is_static(numerator.shape):
        return None
    _, axes, epsilon = found
    x = _centred(numerator, axes)
    return _normalization(RMS if x is None else LAYER, numerator if x is None else x, axes, epsilon)


def _normalization(op: str, x: Value, axes: Sequence[int], epsilon: float) -> Value | None:
    """The node over ``axes`` without scale, the axes brought to the end where they are not."""
    rank = len(x.shape)
    rest = [axis for axis in range(rank) if axis not in axes]
    if not axes:
        return None
    perm = [*rest, *axes]
    moved = transposed(x, perm)
    scale = constant(np.ones(shapes.static(moved.shape)[len(rest) :], x.dtype.numpy))
    node = make_node(op, (moved, scale), {"axis": len(rest), "epsilon": epsilon}, num_outputs=1)
    return transposed(node.out, np.argsort(perm).tolist())


def _divided(node: Node, rewriter: Rewriter) -> Value | None:
    numerator, deviation = operands(node.out)
    return _standardised(numerator, deviation) if numerator.type == node.out.type else None


def _multiplied(node: Node, rewriter: Rewriter) -> Value | None:
    """As ``_divided``, by d * Reciprocal(s), or by d * (Reciprocal(s) * g), which gives g * Normalization"""
    for numerator, inverse in (operands(node.out), operands(node.out)[::-1]):
        if numerator.type != node.out.type:
            continue
        if inverse.op == "Reciprocal":
            return _standardised(numerator, operands(inverse)[0])
        if inverse.op == "Mul":
            for root, scale in (operands(inverse), operands(inverse)[::-1]):
                found = _standardised(numerator, operands(root)[0]) if root.op == "Reciprocal" else None
                if found is not None:
                    return make("Mul", found, scale)
    return None


def _shifted(node: Node, rewriter: Rewriter) -> Value | None:
    """x * k + (b - m * k) -> (x - m) * k + b where m = ReduceMean(x)"""
    for product, rest in (operands(node.out), operands(node.out)[::-1]):
        if product.op != "Mul" or rest.op != "Sub" or operands(rest)[1].op != "Mul":
            continue
        bias, offset = operands(rest)
        for x, k in (operands(product), operands(product)[::-1]):
            mean = _other(offset, k)
            if mean is not None and mean.op == "ReduceMean" and operands(mean)[0] == x and x.type == node.out.type:
                return make("Add", make("Mul", make("Sub", x, mean), k), bias)
    return None


def _other(product: Value, factor: Value) -> Value | None:
    a, b = operands(product)
    return a if b == factor else b if a == factor else None


def _vector(value: Value, extents: shapes.Shape) -> Value | None:
    """A constant that broadcasts along the normalised axes only, shaped like them."""
    array = value.array
    if array is None or array.size == 0:
        return None
    outer = max(0, array.ndim - len(extents))
    inner = array.shape[outer:]
    if array.shape[:outer] != (1,) * outer or any(a not in (1, b) for a, b in zip(inner[::-1], extents[::-1], strict=False)):
        return None
    core = array.reshape(inner)
    return constant(np.ascontiguousarray(np.broadcast_to(core, shapes.static(extents))))


def _take_scale(node: Node, rewriter: Rewriter) -> Value | None:
    """Normalization(x, g) * h -> Normalization(x, g * h), where there is no bias yet"""
    for norm, factor in (operands(node.out), operands(node.out)[::-1]):
        if not _is_open(norm, node, rewriter):
            continue
        x, scale = operands(norm)
        vector = _vector(factor, scale.shape)
        if vector is not None and vector.dtype == x.dtype:
            scale = vector if splat(scale) == 1 else make("Mul", scale, vector)
            return make_node(norm.op, (x, scale), norm.node.attrs, num_outputs=1).out
    return None


def _take_bias(node: Node, rewriter: Rewriter) -> Value | None:
    """LayerNormalization(x, g) + b -> LayerNormalization(x, g, b)"""
    for norm, addend in (operands(node.out), operands(node.out)[::-1]):
        if norm.op == LAYER and _is_open(norm, node, rewriter):
            x, scale = operands(norm)
            vector = _vector(addend, scale.shape)
            if vector is not None and vector.dtype == x.dtype:
                return make_node(LAYER, (x, scale, vector), norm.node.attrs, num_outputs=1).out
    return None


def _is_open(norm: Value, reader: Node, rewriter: Rewriter) -> bool:
    """Whether a value is a normalisation without bias that only ``reader`` reads."""
    is_norm = norm.op in (LAYER, RMS) and len(operands(norm)) == 2 and len(norm.node.types) == 1
    return is_norm and norm.type == reader.out.type and rewriter.uses(norm) == 1 and operands(norm)[1].array is not None


def _softmax(node: Node, rewriter: Rewriter) -> Value | None:
    """exp(x - max x) / sum exp(x - max x) -> Softmax(x)"""
    powers, total = operands(node.out)
    summed = _reduction(total, "ReduceSum")
    if powers.op != "Exp" or summed is None or summed[0] != powers or len(summed[1]) != 1:
        return None
    shifted = operands(powers)[0]
    x, *largest = operands(shifted)
    is_shifted = shifted.op == "Sub" and _reduction(largest[0], "ReduceMax") == (x, summed[1])
    return make("Softmax", x, axis=summed[1][0]) if is_shifted else None


def _group(node: Node, rewriter: Rewriter) -> Value | None:
    """Reshape(InstanceNormalization(Reshape(x, [N, G, -1]))) -> GroupNormalization(x, G groups)"""
    norm = operands(node.out)[0]
    grouped = operands(norm)[0] if norm.op == "InstanceNormalization" else None
    if grouped is None or grouped.op != "Reshape" or rewriter.uses(norm) != 1:
        return None
    x, scale, bias = operands(grouped)[0], *(v.array for v in operands(norm)[1:])
    is_same = x.type == node.out.type and len(x.shape) >= 3 and len(grouped.shape) == 3 and x.shape[0] == grouped.shape[0]
    channels, groups = (shapes.static(x.shape)[1], shapes.static(grouped.shape)[1]) if is_same else (1, 1)
    if not is_same or channels % groups or scale is None or bias is None:
        return None
    vectors = (constant(np.repeat(vector, channels // groups)) for vector in (scale, bias))
    epsilon = norm.node.attrs.get("epsilon", 1e-5)
    return make("GroupNormalization", x, *vectors, num_groups=groups, epsilon=epsilon)


TAKE_SCALE_AND_BIAS = (
    Rule("take_scale", frozenset({"Mul"}), _take_scale),
    Rule("take_bias", frozenset({"Add"}), _take_bias),
)

RULES = (
    Rule("divided", frozenset({"Div"}), _divided),
    Rule("multiplied", frozenset({"Mul"}), _multiplied),
    Rule("shifted", frozenset({"Add"}), _shifted),
    *TAKE_SCALE_AND_BIAS,
    Rule("softmax", frozenset({"Div"}), _softmax),
    Rule("group", frozenset({"Reshape"}), _group),
)
