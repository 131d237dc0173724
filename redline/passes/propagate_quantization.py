"""Quantized tensors stay quantized through operators that only move elements or pick the largest.

QuantizeLinear moves up and DequantizeLinear down until they meet arithmetic; pairs that undo each other go. What is moved
is then bytes (floats of 8 bits among them). Integer activations become unsigned, which is what the processor's dot products
take, or ``signed``, for tensor cores.
"""

import numpy as np

from redline.base import dtypes
from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make_node
from redline.ops.quantize import bounds
from redline.passes.algebra import operands
from redline.passes.constants import number, splat
from redline.passes.quantized import Quantized, dequantized, quantized, with_steps

# Each element of the result is an element of input 0, or the largest of some: the same in integers as in floats.
PICKS = frozenset({"Reshape", "Transpose", "Slice", "Expand", "Gather", "GatherElements", "MaxPool"})
# Of those, the ones before which a tensor is no larger than after: QuantizeLinear moves up through them at no cost.
KEEPS_SIZE = frozenset({"Reshape", "Transpose", "MaxPool"})
SIGNED_TO_UNSIGNED = 128


def run(graph: Graph, signed: bool = False) -> Graph:
    name, change = ("signed", _signed) if signed else ("unsigned", _unsigned)
    graph = rewrite(graph, [Rule(name, frozenset({"DequantizeLinear"}), change)])[0]
    return rewrite(graph, RULES)[0]


def _unsigned(node: Node, rewriter: Rewriter) -> Value | None:
    """DQ(Q(x, s, z: int8)) -> DQ(Q(x, s, z + 128: uint8))"""
    found = dequantized(node.out)
    if found is None or not found.is_per_tensor or found.x.dtype != dtypes.int8:
        return None
    moved = as_unsigned(found.x)
    return None if moved is None else with_steps("DequantizeLinear", moved, node.out, _raised(found))


def _signed(node: Node, rewriter: Rewriter) -> Value | None:
    """DQ(Q(x, s, z: uint8)) -> DQ(Q(x, s, z - 128: int8))"""
    found = dequantized(node.out)
    if found is None or not found.is_per_tensor or found.x.dtype != dtypes.uint8:
        return None
    moved = as_unsigned(found.x, -SIGNED_TO_UNSIGNED)
    zero = np.asarray(found.zero - SIGNED_TO_UNSIGNED).astype(np.int8)
    return None if moved is None else with_steps("DequantizeLinear", moved, node.out, zero)


def as_unsigned(value: Value, shift: int = SIGNED_TO_UNSIGNED) -> Value | None:
    """8-bit ``value`` plus ``shift``, with the other sign, if it comes from a QuantizeLinear through moves; else None."""
    if value.op in PICKS and len(value.node.types) == 1:
        moved = as_unsigned(operands(value)[0], shift)
        return None if moved is None else make_node(value.op, (moved, *value.node.inputs[1:]), value.node.attrs).out
    found = quantized(value)
    if found is None or not found.is_per_tensor or found.x.dtype != dtypes.float32:
        return None
    attrs = {key: item for key, item in value.node.attrs.items() if key != "output_dtype"}
    zero = np.asarray(found.zero + shift).astype(np.uint8 if shift > 0 else np.int8)
    return make_node("QuantizeLinear", (found.x, value.node.inputs[1], constant(zero)), attrs).out


def _raised(found: Quantized) -> np.ndarray:
    return np.asarray(found.zero + SIGNED_TO_UNSIGNED).astype(np.uint8)


def _sink(node: Node, rewriter: Rewriter) -> Value | None:
    """Pick(DQ(x)) -> DQ(Pick(x))"""
    source = dequantized(node.inputs[0])
    if source is None or not source.is_per_tensor or source.scale <= 0 or len(node.types) != 1:
        return None
    new = make_node(node.op, (source.x, *node.inputs[1:]), node.attrs, num_outputs=1).out
    return with_steps("DequantizeLinear", new, operands(node.out)[0])


def _sink_pad(node: Node, rewriter: Rewriter) -> Value | None:
    """Pad(DQ(x), 0) -> DQ(Pad(x, zero))"""
    source = dequantized(node.inputs[0])
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    if source is None or not source.is_per_tensor or (fill is not None and splat(fill) != 0):
        return None
    zero = constant(source.zero.astype(source.x.dtype.numpy))
    new = make_node("Pad", (source.x, node.inputs[1], zero, *node.inputs[3:]), node.attrs).out
    return with_steps("DequantizeLinear", new, operands(node.out)[0])


def _sink_concat(node: Node, rewriter: Rewriter) -> Value | None:
    """Concat(DQ(x), DQ(y)) -> DQ(Concat(x, y)) where both have the same steps"""
    parts = [dequantized(v) for v in node.inputs]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts) or not all(part.same_steps(found[0]) for part in found):
        return None
    if len({part.x.dtype.name for part in found}) > 1:
        return None
    return with_steps(
        "DequantizeLinear", make_node("Concat", [part.x for part in found], node.attrs).out, operands(node.out)[0]
    )


def _rise(node: Node, rewriter: Rewriter) -> Value | None:
    """Q(Pick(x)) -> Pick(Q(x));  Q(Concat(x, y)) -> Concat(Q(x), Q(y))"""
    found = quantized(node.out)
    if found is None or not found.is_per_tensor or found.scale <= 0 or len(found.x.node.types) != 1:
        return None
    moved = found.x
    if moved.op == "Concat" and (rewriter.uses(moved) == 1 or any(dequantized(v) for v in moved.node.inputs)):
        parts = [with_steps("QuantizeLinear", part, node.out) for part in operands(moved)]
        return make_node("Concat", parts, moved.node.attrs).out
    if moved.op not in KEEPS_SIZE or rewriter.uses(moved) != 1:
        return None
    inner = with_steps("QuantizeLinear", operands(moved)[0], node.out)
    return make_node(moved.op, (inner, *moved.node.inputs[1:]), moved.node.attrs, num_outputs=1).out


def _cancel(node: Node, rewriter: Rewriter) -> Value | None:
    """Q(DQ(x)) -> x where both have the same steps"""
    outer = quantized(node.out)
    inner = None if outer is None else dequantized(outer.x)
    if outer is None or inner is None or not outer.same_steps(inner) or inner.x.type != node.out.type:
        return None
    return inner.x if outer.scale > 0 else None


def _saturate(node: Node, rewriter: Rewriter) -> Value | None:
    """Q(Relu(x)) -> Q(x), Q(Clip(x)) -> Q(x) where the integers' own range cuts as early"""
    found = quantized(node.out)
    if found is None or not found.is_per_tensor or found.scale <= 0 or found.x.op not in ("Relu", "Clip"):
        return None
    inner = found.x.node
    low, high = (0.0, None) if inner.op == "Relu" else map(number, (*inner.inputs[1:], None, None)[:2])
    bottom, top = bounds(node.out.dtype)
    if inner.op == "Clip" and any(v is not None and number(v) is None for v in inner.inputs[1:]):
        return None
    cuts_low = low is not None and np.rint(low / found.scale) + found.zero > bottom
    cuts_high = high is not None and np.rint(high / found.scale) + found.zero < top
    if cuts_low or cuts_high:
        return None
    return with_steps("QuantizeLinear", operands(found.x)[0], node.out)


def _average(node: Node, rewriter: Rewriter) -> Value | None:
    """AveragePool(DQ(x)) -> (AveragePool(float(x)) - z) * s: the mean of bytes, where padding does not count"""
    source = dequantized(node.inputs[0])
    if source is None or not source.is_per_tensor or node.attrs.get("count_include_pad", 0):
        return None
    wide = make_node("Cast", (source.x,), {"to": dtypes.float32.onnx}).out
    mean = make_node("AveragePool", (wide,), node.attrs, num_outputs=1).out
    centred = make_node("Add", (mean, constant(np.asarray(-source.zero, np.float32)))).out
    return make_node("Mul", (centred, constant(np.asarray(source.scale, np.float32)))).out


RULES = (
    Rule("cancel", frozenset({"QuantizeLinear"}), _cancel),
    Rule("saturate", frozenset({"QuantizeLinear"}), _saturate),
    Rule("rise", frozenset({"QuantizeLinear"}), _rise),
    Rule("sink", PICKS, _sink),
    Rule("sink_pad", frozenset({"Pad"}), _sink_pad),
    Rule("sink_concat", frozenset({"Concat"}), _sink_concat),
    Rule("average", frozenset({"AveragePool"}), _average),
)
