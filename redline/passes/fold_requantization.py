"""The scale of a QuantizeLinear joins the constants before it, so that what is left of it is rounding and a cut.

    Q(a * c, s, z) -> Q(a * (c / s), 1, z),  and so through additions, Relu, Clip and DequantizeLinear

A QuantizeLinear of scale 1 with one constant zero point is what lowering knows; all others become arithmetic.
"""

import numpy as np

from redline.base import dtypes
from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make
from redline.ops.registry import lookup, view
from redline.passes.algebra import operands
from redline.passes.quantized import dequantized, quantized

MAX_DEPTH = 6


def run(graph: Graph) -> Graph:
    return rewrite(graph, [Rule("unit_scale", frozenset({"QuantizeLinear"}), _unit_scale)])[0]


def _unit_scale(node: Node, rewriter: Rewriter) -> Value | None:
    """Q(x, s, z) -> Q(x / s, 1, z), or arithmetic where the parameters are no single constants"""
    found = quantized(node.out)
    if found is None or not found.is_per_tensor or found.scale <= 0:
        decompose = lookup(node.op).decompose
        result = None if decompose is None else decompose(view(node))
        return result if isinstance(result, Value) else None
    if found.scale == 1 and len(node.inputs) > 2:
        return None
    scale = np.float32(found.scale)
    divided = _divided(found.x, scale, rewriter, 0) or make("Div", found.x, constant(scale))
    return make("QuantizeLinear", divided, constant(np.float32(1)), constant(found.zero.astype(node.out.dtype.numpy)))


def _divided(value: Value, scale: np.float32, rewriter: Rewriter, depth: int) -> Value | None:
    """``value`` divided by ``scale`` within constants that are there anyhow; None where some are missing."""
    if value.array is not None:
        return constant(value.array / scale) if value.dtype == dtypes.float32 else None
    found = dequantized(value)
    if found is not None:
        scales = constant((found.scale.astype(np.float32) / scale).reshape(operands(value)[1].shape))
        return make("DequantizeLinear", found.x, scales, *value.node.inputs[2:], **value.node.attrs)
    if depth == MAX_DEPTH or rewriter.uses(value) > 1:
        return None
    if value.op == "Mul":
        a, c = operands(value)
        return make("Mul", a, constant(c.array / scale)) if c.array is not None and c.dtype == dtypes.float32 else None
    if value.op in ("Add", "Relu", "Clip") and all(v is not None for v in value.node.inputs):
        parts = [_divided(v, scale, rewriter, depth + 1) for v in operands(value)]
        return None if any(part is None for part in parts) else make(value.op, *parts, **value.node.attrs)
    return None
