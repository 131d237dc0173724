"""Chains of operators that only move or retype elements become shorter."""

from collections.abc import Sequence

import numpy as np

from redline.base import dtypes, shapes
from redline.base.dtypes import DType
from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ops import make
from redline.ops.move import permutation
from redline.ops.registry import view
from redline.ops.rules import cast, ints, reshaped, transposed
from redline.ops.slicing import slice_spans


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def source(node: Node) -> Value:
    """The data that a movement operator moves: its input 0."""
    value = node.inputs[0]
    assert value is not None
    return value


def moves_only_units(shape: Sequence[object], perm: Sequence[int]) -> bool:
    """Whether a permutation leaves the axes longer than 1 in their order, so that it is a mere Reshape."""
    long = [axis for axis in perm if shape[axis] != 1]
    return long == sorted(long)


def _reshape(node: Node, rewriter: Rewriter) -> Value | None:
    """Reshape(x) -> x where the shape stays;  Reshape(Reshape(x)) -> Reshape(x)"""
    x = source(node)
    if x.type == node.out.type:
        return x
    if x.op != "Reshape" or not shapes.is_static(node.out.shape):
        return None
    return reshaped(source(x.node), node.out.shape)


def _transpose(node: Node, rewriter: Rewriter) -> Value | None:
    """Transpose(x, identity) -> x;  Transpose(Transpose(x, p), q) -> Transpose(x, p[q])"""
    x, perm = source(node), permutation(view(node))
    if perm == tuple(range(len(perm))):
        return x
    if x.op != "Transpose":
        return None
    inner = permutation(view(x.node))
    return transposed(source(x.node), [inner[axis] for axis in perm])


def _unit_transpose(node: Node, rewriter: Rewriter) -> Value | None:
    """Transpose(x) -> Reshape(x) where only axes of extent 1 change places"""
    x, perm = source(node), permutation(view(node))
    return reshaped(x, node.out.shape) if shapes.is_static(x.shape) and moves_only_units(x.shape, perm) else None


def is_lossless(a: DType, b: DType) -> bool:
    """Whether every value of ``a`` is a value of ``b``."""
    if a.size == 8 and a.is_integer and b.is_float:
        return False  # numpy calls int64 -> float64 safe
    return a == b or a == dtypes.bool_ or np.can_cast(a.numpy, b.numpy, "safe")


def _cast(node: Node, rewriter: Rewriter) -> Value | None:
    """Cast(x: T, T) -> x;  Cast(Cast(x: A, B), C) -> Cast(x, C) where every A is a B"""
    x = source(node)
    if x.type == node.out.type:
        return x
    if x.op != "Cast" or not is_lossless(source(x.node).dtype, x.dtype):
        return None
    return cast(source(x.node), node.out.dtype)


def _slice(node: Node, rewriter: Rewriter) -> Value | None:
    """Slice(x) -> x where all is taken;  Slice(Slice(x)) -> Slice(x) for forward slices"""
    x = source(node)
    if x.type == node.out.type and all(span.step == 1 for span in slice_spans(view(node))):
        return x
    if x.op != "Slice" or not shapes.is_static(source(x.node).shape):
        return None
    outer, inner = slice_spans(view(node)), slice_spans(view(x.node))
    if any(span.step < 0 for span in outer + inner):
        return None
    starts = [a.start + a.step * b.start for a, b in zip(inner, outer, strict=True)]
    steps = [a.step * b.step for a, b in zip(inner, outer, strict=True)]
    counts = shapes.static(node.out.shape)
    ends = [
        start + (count - 1) * step + 1 if count else start for start, count, step in zip(starts, counts, steps, strict=True)
    ]
    return make("Slice", source(x.node), ints(starts), ints(ends), ints(range(len(starts))), ints(steps))


def _concat(node: Node, rewriter: Rewriter) -> Value | None:
    """Concat(x) -> x;  Concat(x[0:a], x[a:]) -> x;  Concat(a, Concat(b, c)) -> Concat(a, b, c)"""
    values = [v for v in node.inputs if v is not None]
    axis = view(node).axis(0, len(node.out.shape))
    if len(values) == 1:
        return values[0]
    whole = _whole(values, axis)
    if whole is not None and whole.type == node.out.type:
        return whole
    flat: list[Value | None] = []
    for value in values:
        same_axis = value.op == "Concat" and view(value.node).axis(0, len(value.shape)) == axis and rewriter.uses(value) == 1
        flat += value.node.inputs if same_axis else [value]
    return None if flat == values else make("Concat", *flat, axis=axis)


def _whole(values: Sequence[Value], axis: int) -> Value | None:
    """The value whose consecutive slices along ``axis`` the values are, from its first element on."""
    if any(value.op != "Slice" or source(value.node) != source(values[0].node) for value in values):
        return None
    at = 0
    for value in values:
        for i, span in enumerate(slice_spans(view(value.node))):
            extent = source(value.node).shape[i]
            if (span.start, span.step) != (at if i == axis else 0, 1) or (i != axis and span.count != extent):
                return None
        at += shapes.static((value.shape[axis],))[0]
    return source(values[0].node)


def _expand(node: Node, rewriter: Rewriter) -> Value | None:
    """Expand(x) -> x where the shape stays;  Expand(Expand(x)) -> Expand(x)"""
    x = source(node)
    if x.type == node.out.type:
        return x
    if x.op != "Expand" or not shapes.is_static(node.out.shape):
        return None
    return make("Expand", source(x.node), ints(shapes.static(node.out.shape)))


RULES = (
    Rule("reshape", frozenset({"Reshape"}), _reshape),
    Rule("transpose", frozenset({"Transpose"}), _transpose),
    Rule("unit_transpose", frozenset({"Transpose"}), _unit_transpose),
    Rule("cast", frozenset({"Cast"}), _cast),
    Rule("slice", frozenset({"Slice"}), _slice),
    Rule("concat", frozenset({"Concat"}), _concat),
    Rule("expand", frozenset({"Expand"}), _expand),
)
