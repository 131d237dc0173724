"""Arithmetic that changes nothing goes, and expensive forms become cheap ones.

Floats: a rule keeps every value to one unit in the last place, NaN and infinities included, and may change the sign of
a zero. Which side a constant stands on is settled too: the right one.
"""

import math

import numpy as np

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make
from redline.ops.rules import ints
from redline.passes.constants import is_constant, like, splat
from redline.passes.ranges import is_nonnegative


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _pair(node: Node) -> tuple[Value, Value]:
    a, b = node.inputs
    assert a is not None and b is not None
    return a, b


def _constant_right(node: Node, rewriter: Rewriter) -> Value | None:
    """c + x -> x + c;  c * x -> x * c"""
    a, b = _pair(node)
    return make(node.op, b, a, **node.attrs) if is_constant(a) and not is_constant(b) else None


NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1}


def _neutral(node: Node, rewriter: Rewriter) -> Value | None:
    """x + 0, x - 0, x * 1, x / 1, x ** 1 -> x"""
    x, c = _pair(node)
    return x if splat(c) == NEUTRAL[node.op] and x.type == node.out.type else None


def _all_or_none(node: Node, rewriter: Rewriter) -> Value | None:
    """x And true, x Or false -> x, or Expand(x) where the constant had the larger shape"""
    for x, c in (_pair(node), _pair(node)[::-1]):
        if splat(c) == (node.op == "And") and not is_constant(x):
            if x.type == node.out.type:
                return x
            return make("Expand", x, ints(shapes.static(node.out.shape))) if shapes.is_static(node.out.shape) else None
    return None


def _subtract_constant(node: Node, rewriter: Rewriter) -> Value | None:
    """x - c -> x + (-c), integers wrapping"""
    x, c = _pair(node)
    return make("Add", x, constant(np.negative(c.array))) if c.array is not None and not is_constant(x) else None


def _divide_constant(node: Node, rewriter: Rewriter) -> Value | None:
    """x / c -> x * (1/c) where 1/c is exact, or is a normal float32 or float64"""
    x, c = _pair(node)
    if c.array is None or not c.dtype.is_float or c.array.size == 0:
        return None
    with np.errstate(all="ignore"):
        inverse = like(1 / c.array.astype(np.float64), c)
    mantissa, _ = np.frexp(c.array.astype(np.float64))
    is_exact = bool(np.all(np.abs(mantissa) == 0.5))
    if not _is_normal(inverse) or not (is_exact or c.dtype.name in ("float32", "float64")):
        return None
    return make("Mul", x, constant(inverse))


def _is_normal(array: np.ndarray) -> bool:
    """Whether no element is zero, subnormal, infinite or NaN."""
    single = np.abs(array.astype(np.float64))
    tiny = {"float16": 2.0**-14, "float64": 2.0**-1022}.get(str(array.dtype), 2.0**-126)
    return bool(np.all(np.isfinite(single) & (single >= tiny)))


def _twice(node: Node, rewriter: Rewriter) -> Value | None:
    """-(-x) -> x;  not not x -> x"""
    (x,) = node.inputs
    return x.node.inputs[0] if x is not None and x.op == node.op else None


def _idempotent(node: Node, rewriter: Rewriter) -> Value | None:
    """f(f(x)) -> f(x) for Relu, Abs, Ceil, Floor, Round, Sign"""
    (x,) = node.inputs
    return x if x is not None and x.op == node.op else None


def _power(node: Node, rewriter: Rewriter) -> Value | None:
    """x**2 -> x*x;  x**3 -> x*x*x;  x**-1 -> 1/x;  x**0.5 -> sqrt(x), x**-0.5 -> 1/sqrt(x) where x >= 0"""
    x, exponent = _pair(node)
    p = splat(exponent)
    if p is None or x.type != node.out.type:
        return None
    if p in (2, 3):
        square = make("Mul", x, x)
        return square if p == 2 else make("Mul", square, x)
    if not x.dtype.is_float:
        return None
    if p == -1:
        return make("Reciprocal", x)
    if abs(p) == 0.5 and is_nonnegative(x):
        root = make("Sqrt", x)
        return root if p > 0 else make("Reciprocal", root)
    return None


def _divide_one(node: Node, rewriter: Rewriter) -> Value | None:
    """1 / x -> Reciprocal(x)"""
    one, x = _pair(node)
    return make("Reciprocal", x) if splat(one) == 1 and x.dtype.is_float and x.type == node.out.type else None


def _add_negative(node: Node, rewriter: Rewriter) -> Value | None:
    """a + (-b) -> a - b"""
    a, b = _pair(node)
    if b.op == "Neg":
        return make("Sub", a, b.node.inputs[0])
    return make("Sub", b, a.node.inputs[0]) if a.op == "Neg" else None


def _multiply_reciprocal(node: Node, rewriter: Rewriter) -> Value | None:
    """a * Reciprocal(b) -> a / b where the reciprocal serves nothing else and is not the cheaper for being broadcast"""
    a, b = _pair(node)
    for x, inverse in ((a, b), (b, a)):
        if inverse.op == "Reciprocal" and x != inverse and rewriter.uses(inverse) == 1 and inverse.type == node.out.type:
            return make("Div", x, inverse.node.inputs[0])
    return None


def _where(node: Node, rewriter: Rewriter) -> Value | None:
    """Where(c, x, x) -> x;  Where(true, x, y) -> x;  Where(false, x, y) -> y;  Where(Not c, x, y) -> Where(c, y, x)"""
    condition, x, y = node.inputs
    if condition is None or x is None or y is None:
        return None
    if condition.op == "Not":
        return make("Where", condition.node.inputs[0], y, x)
    decided = splat(condition)
    chosen = x if x == y or decided is True else y if decided is False else None
    return chosen if chosen is not None and chosen.type == node.out.type else None


def _clip(node: Node, rewriter: Rewriter) -> Value | None:
    """Clip(x) -> x;  Clip(x, 0) -> Relu(x);  an infinite bound goes"""
    x, low, high = (*node.inputs, None, None)[:3]
    if x is None or not x.dtype.is_float:
        return None
    a, b = splat(low), splat(high)
    needs_low, needs_high = low is not None and a != -math.inf, high is not None and b != math.inf
    if not needs_low and not needs_high:
        return x
    if a == 0 and not needs_high:
        return make("Relu", x)
    trimmed = (x, low if needs_low else None, high if needs_high else None)
    return None if trimmed == (x, low, high) else make("Clip", *trimmed)


def _bound(node: Node, rewriter: Rewriter) -> Value | None:
    """Max(x, 0) -> Relu(x);  Max(x, c) -> Clip(x, c);  Min(x, c) -> Clip(x, -, c)"""
    a, b = _pair(node)
    x, c = (b, a) if is_constant(a) else (a, b)
    limit = splat(c)
    if limit is None or math.isnan(limit) or not x.dtype.is_float or x.type != node.out.type or is_constant(x):
        return None
    if node.op == "Max" and limit == 0:
        return make("Relu", x)
    scalar = constant(like(limit, x))
    return make("Clip", x, scalar) if node.op == "Max" else make("Clip", x, None, scalar)


def _clip_of_clip(node: Node, rewriter: Rewriter) -> Value | None:
    """Clip(Clip(x, a, b), c, d) -> Clip(x, max(a, c), min(b, d)), Relu being Clip(x, 0), where those bounds are in order"""
    inner = node.inputs[0]
    if inner is None or inner.op not in ("Clip", "Relu") or not inner.dtype.is_float:
        return None
    bounds = [_bounds(inner.node), _bounds(node)]
    if None in bounds:
        return None
    (a, b), (c, d) = bounds  # type: ignore[misc]
    low, high = max(a, c), min(b, d)
    if not (a <= b and c <= d and low <= high):
        return None
    limits = [constant(like(v, inner)) if math.isfinite(v) else None for v in (low, high)]
    return make("Clip", inner.node.inputs[0], *limits)


def _bounds(node: Node) -> tuple[float, float] | None:
    """The bounds of a Clip or Relu, infinite where there are none; None where they are not known."""
    if node.op == "Relu":
        return 0.0, math.inf
    _, low, high = (*node.inputs, None, None)[:3]
    a = -math.inf if low is None else splat(low)
    b = math.inf if high is None else splat(high)
    return None if a is None or b is None or math.isnan(a) or math.isnan(b) else (float(a), float(b))


RULES = (
    Rule("constant_right", frozenset({"Add", "Mul"}), _constant_right),
    Rule("neutral", frozenset(NEUTRAL), _neutral),
    Rule("all_or_none", frozenset({"And", "Or"}), _all_or_none),
    Rule("subtract_constant", frozenset({"Sub"}), _subtract_constant),
    Rule("divide_constant", frozenset({"Div"}), _divide_constant),
    Rule("divide_one", frozenset({"Div"}), _divide_one),
    Rule("twice", frozenset({"Neg", "Not"}), _twice),
    Rule("idempotent", frozenset({"Relu", "Abs", "Ceil", "Floor", "Round", "Sign"}), _idempotent),
    Rule("power", frozenset({"Pow"}), _power),
    Rule("add_negative", frozenset({"Add"}), _add_negative),
    Rule("multiply_reciprocal", frozenset({"Mul"}), _multiply_reciprocal),
    Rule("where", frozenset({"Where"}), _where),
    Rule("clip_of_clip", frozenset({"Clip", "Relu"}), _clip_of_clip),
    Rule("clip", frozenset({"Clip"}), _clip),
    Rule("bound", frozenset({"Max", "Min"}), _bound),
)
