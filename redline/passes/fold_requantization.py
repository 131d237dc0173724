"""The scale of a QuantizeLinear joins the constants before it, so that what is left of it is rounding and a cut.

    Q(a * c, s, z) -> Q(a * (c / s), 1, z),  and so through additions, Relu, Clip and DequantizeLinear

What lowering knows is a QuantizeLinear of one constant scale and zero point, a scale of 1 where it is not a division of
the model's own input; all others become arithmetic.
"""

import numpy as np

from redline.base import dtypes, shapes
from redline.ir import INPUT, Graph, Node, Rewriter, Rule, TensorType, Value, constant, rewrite
from redline.ops import make
from redline.ops.registry import lookup, view
from redline.ops.rules import cast
from redline.passes.algebra import operands
from redline.passes.quantized import Quantized, dequantized, quantized

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
    total = _sum(found, scale)
    if total is not None:
        return make("QuantizeLinear", total, _number(1), constant(np.zeros((), node.out.dtype.numpy)))
    if found.x.op == INPUT and len(node.inputs) > 2:
        return None
    divided = _divided(found.x, scale, rewriter, 0) or make("Mul", found.x, _number(np.float32(1) / scale))
    return make("QuantizeLinear", divided, _number(1), constant(found.zero.astype(node.out.dtype.numpy)))


def _sum(found: Quantized, scale: np.float32) -> Value | None:
    """Q(DQ(a) + DQ(b), s, z) -> Q(a sa/s + (b sb/s + rest), 1, 0): two multiply-adds, in the order of ONNX Runtime's kernel"""
    a, b = map(dequantized, operands(found.x)) if found.x.op == "Add" else (None, None)
    if a is None or b is None or not a.is_per_tensor or not b.is_per_tensor or found.x.type not in (_wide(a), _wide(b)):
        return None
    ra, rb = (np.float32(np.float32(side.scale) / scale) for side in (a, b))
    rest = np.float32(found.zero) - (ra * np.float32(a.zero) + rb * np.float32(b.zero))
    right = make("Add", make("Mul", cast(b.x, dtypes.float32), _number(rb)), _number(rest))
    return make("Add", make("Mul", cast(a.x, dtypes.float32), _number(ra)), right)


def _number(value: float | np.floating) -> Value:
    return constant(np.asarray(value, np.float32))


def _wide(side: Quantized) -> TensorType:
    return TensorType(dtypes.float32, side.x.shape)


def _divided(value: Value, scale: np.float32, rewriter: Rewriter, depth: int) -> Value | None:
    """``value`` divided by ``scale`` within constants that are there anyhow; None where some are missing."""
    if value.array is not None:
        return constant(value.array / scale) if value.dtype == dtypes.float32 else None
    found = dequantized(value)
    if found is not None:
        scales = constant((found.scale.astype(np.float32) / scale).reshape(shapes.static(operands(value)[1].shape)))
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
