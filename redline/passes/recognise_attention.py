"""Attention spelt out becomes one node: Softmax(scale * Q K^T + mask) V, with whatever exporters write around it.

The node is the plain form of the standard's Attention: Q, K and V are [B, H, S, D], the mask is boolean or additive and
broadcasts to [B, H, Sq, Sk]. A query whose every key is hidden by -infinity answers 0, also where the products gave NaN.
"""

from dataclasses import dataclass, replace

import numpy as np

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ops import make, make_node
from redline.ops.registry import view
from redline.ops.rules import ints, reshaped, scalar, transposed
from redline.passes.algebra import affine_step, operands
from redline.passes.constants import splat

MAX_DEPTH = 8
HIDDEN = -1e4  # exp of this and less is 0 beside any score that is not hidden
HIDES = {"float16": -32000.0, "float32": -1e30, "float64": -1e30, "bfloat16": -1e30}


def run(graph: Graph) -> Graph:
    return rewrite(graph, [Rule("attention", frozenset({"MatMul"}), _attention)])[0]


@dataclass(frozen=True)
class Scores:
    """scale * Q K^T + mask; ``key`` is K^T."""

    query: Value
    key: Value
    scale: float
    mask: Value | None = None

    def plus(self, mask: Value) -> "Scores":
        return replace(self, mask=mask if self.mask is None else make("Add", self.mask, mask))

    def times(self, factor: float) -> "Scores":
        mask = None if self.mask is None else make("Mul", self.mask, scalar(factor, self.mask.dtype))
        return replace(self, scale=self.scale * factor, mask=mask)


def _attention(node: Node, rewriter: Rewriter) -> Value | None:
    """MatMul(Softmax(scores), V) -> Attention(Q, K, V, mask)"""
    weights, value = operands(node.out)
    softmax = _unguarded(weights)
    if softmax.op != "Softmax" or rewriter.uses(softmax) > (1 if softmax == weights else 2) or rewriter.uses(weights) > 1:
        return None
    rank = len(softmax.shape)
    if rank not in (3, 4) or view(softmax.node).axis(-1, rank) != rank - 1 or not shapes.is_static(softmax.shape):
        return None
    scores = _scores(operands(softmax)[0], rewriter)
    if scores is None or not scores.query.shape[:-2] == scores.key.shape[:-2] == value.shape[:-2] or not value.dtype.is_float:
        return None
    return reshaped(_node(scores, value), node.out.shape)


def _unguarded(weights: Value) -> Value:
    """The p of Where(IsNaN(p), 0, p); anything else as it is."""
    if weights.op != "Where":
        return weights
    condition, zero, p = operands(weights)
    is_guard = condition.op == "IsNaN" and operands(condition)[0] == p and splat(zero) == 0
    return p if is_guard else weights


def _scores(value: Value, rewriter: Rewriter, depth: int = 0) -> Scores | None:
    """Reads scores through scalings and masks, all of the scores' own shape and read by nothing else."""
    if rewriter.uses(value) > 1 or depth == MAX_DEPTH:
        return None
    if value.op == "MatMul":
        (query, a), (key, b) = map(_unscaled, operands(value))
        return Scores(query, key, a * b)
    step = affine_step(value)
    if step is not None and step.offset == 0:
        inner = _scores(step.core, rewriter, depth + 1)
        return inner and inner.times(step.scale)
    for scores, mask in _masked(value):
        inner = _scores(scores, rewriter, depth + 1) if scores.type == value.type else None
        if inner is not None:
            return inner.plus(mask)
    return None


def _unscaled(value: Value) -> tuple[Value, float]:
    """``value`` as a number times something, seen through movements."""
    step = affine_step(value)
    if step is not None and step.offset == 0:
        core, factor = _unscaled(step.core)
        return core, factor * step.scale
    if value.op not in ("Transpose", "Reshape"):
        return value, 1.0
    core, factor = _unscaled(operands(value)[0])
    return (value, 1.0) if factor == 1 else (value.node.with_inputs((core, *value.node.inputs[1:])).out, factor)


def _masked(value: Value) -> list[tuple[Value, Value]]:
    """The ways in which ``value`` may be scores plus an additive mask."""
    if value.op == "Add":
        a, b = operands(value)
        return [(a, b), (b, a)]
    if value.op == "Where":
        condition, x, y = operands(value)
        if _is_hidden(y):
            return [(x, _hiding(condition, y, False))]
        return [(y, _hiding(condition, x, True))] if _is_hidden(x) else []
    if value.op == "Reshape" and operands(value)[0].op == "Add":
        a, b = operands(operands(value)[0])
        return [*_windows(value, a, b), *_windows(value, b, a)]
    return []


def _is_hidden(fill: Value) -> bool:
    number = splat(fill)
    return number is not None and fill.dtype.is_float and number <= HIDDEN


def _hiding(condition: Value, fill: Value, where_true: bool) -> Value:
    """The additive mask of a Where that writes ``fill`` over scores: a row that finite numbers hide whole stays uniform."""
    number = splat(fill)
    hidden = scalar(-np.inf if number == -np.inf else HIDES[fill.dtype.name], fill.dtype)
    zero = scalar(0, fill.dtype)
    return make("Where", condition, hidden, zero) if where_true else make("Where", condition, zero, hidden)


def _windows(value: Value, scores: Value, mask: Value) -> list[tuple[Value, Value]]:
    """Scores [B * W, H, S, S], seen as [B, W, H, S, S] for a mask of every window."""
    if scores.op != "Reshape" or len(scores.shape) != 5 or len(mask.shape) > 5 or scores.shape[2:] != value.shape[1:]:
        return []
    extents = (1,) * (5 - len(mask.shape)) + shapes.static(mask.shape)
    wide = ints((*shapes.static(scores.shape[:2]), *extents[2:]))
    flat = reshaped(make("Expand", mask, wide), (value.shape[0], *extents[2:]))
    return [(operands(scores)[0], flat)]


def _node(scores: Scores, value: Value) -> Value:
    """The Attention node, in four axes."""
    rank = len(value.shape)
    key = transposed(scores.key, (*range(rank - 2), rank - 1, rank - 2))
    q, k, v = (reshaped(x, (1,) * (4 - rank) + x.shape) for x in (scores.query, key, value))
    mask, attrs = scores.mask, {"scale": scores.scale}
    if mask is not None and splat(mask) == 0:
        mask = None
    if mask is not None and _is_causal(mask, (q.shape[2], k.shape[2])):
        mask, attrs["is_causal"] = None, 1
    if mask is None:
        return make_node("Attention", (q, k, v), attrs, num_outputs=1).out
    mask = _as_boolean(mask)
    mask = reshaped(mask, (1,) * (4 - len(mask.shape)) + mask.shape)
    return make_node("Attention", (q, k, v, mask), attrs, num_outputs=1).out


def _is_causal(mask: Value, extents: shapes.Shape) -> bool:
    """Whether a constant mask hides exactly the keys after each query, of which there are as many as keys."""
    array = mask.array
    if array is None or array.ndim < 2 or array.shape[-2:] != extents or extents[0] != extents[1]:
        return False
    later = np.triu(np.ones(array.shape[-2:], bool), 1)
    return bool(np.all(array[..., later] <= HIDDEN)) and bool(np.all(array[..., ~later] == 0))


def _as_boolean(mask: Value) -> Value:
    """Where(c, 0, -inf) -> c;  Where(c, -inf, 0) -> Not c"""
    if mask.op != "Where":
        return mask
    condition, x, y = operands(mask)
    if (splat(x), splat(y)) == (0, -np.inf):
        return condition
    return make("Not", condition) if (splat(x), splat(y)) == (-np.inf, 0) else mask
