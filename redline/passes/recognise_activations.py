"""Activation functions spelt out by exporters become one node again.

Each is a product of x and a gate; the gate is an affine function of Erf, Tanh, Sigmoid or Clip of a polynomial in x. So
the constants may stand anywhere and in any order.
"""

import math
from collections.abc import Callable, Mapping

from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ops import make
from redline.passes.algebra import Affine, Polynomial, affine, operands, polynomial, product
from redline.passes.constants import near, number

ERF = {1: math.sqrt(0.5)}
TANH = {1: math.sqrt(2 / math.pi), 3: math.sqrt(2 / math.pi) * 0.044715}
LOGISTIC = {n: 2 * c for n, c in TANH.items()}


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _gated(node: Node, rewriter: Rewriter) -> Value | None:
    """c * x * (a * gate(x) + b) -> the activation of x"""
    coefficient, factors = product(node.out, rewriter.uses)
    if len(factors) != 2 or not node.out.dtype.is_float or any(f.type != node.out.type for f in factors):
        return None
    for x, gate in (factors, factors[::-1]):
        inner = affine(gate)
        form = Affine(coefficient * inner.scale, inner.core, coefficient * inner.offset)
        if inner.core.op in GATES and rewriter.uses(inner.core) == 1:
            found = GATES[inner.core.op](x, form)
            if found is not None:
                return found
    return None


def _is(found: Polynomial | None, wanted: Mapping[int, float], x: Value) -> bool:
    """Whether the polynomial has the coefficients wanted and no others."""
    rest = {n for n, c in (found or {}).items() if c != 0}
    return found is not None and rest == set(wanted) and all(near(found[n], c, x) for n, c in wanted.items())


def _is_half_and_half(form: Affine) -> bool:
    return near(form.scale, 0.5, form.core) and near(form.offset, 0.5, form.core)


def _is_bare(form: Affine) -> bool:
    return near(form.scale, 1, form.core) and form.offset == 0


def _slope(found: Polynomial | None) -> float | None:
    """k of a polynomial k * x."""
    return found[1] if found is not None and {n for n, c in found.items() if c != 0} == {1} else None


def _erf(x: Value, form: Affine) -> Value | None:
    """x * (erf(x / sqrt 2) + 1) / 2 -> Gelu(x)"""
    argument = polynomial(operands(form.core)[0], x)
    return make("Gelu", x) if _is_half_and_half(form) and _is(argument, ERF, x) else None


def _tanh(x: Value, form: Affine) -> Value | None:
    """x * (tanh(sqrt(2/pi) * (x + 0.044715 x^3)) + 1) / 2 -> Gelu(x, tanh);  x * tanh(Softplus(x)) -> Mish(x)

    x * (tanh(k x / 2) + 1) / 2 -> Swish(x, k)
    """
    inner = operands(form.core)[0]
    if inner.op == "Softplus" and operands(inner)[0] == x and _is_bare(form):
        return make("Mish", x)
    argument = polynomial(inner, x)
    if not _is_half_and_half(form):
        return None
    slope = _slope(argument)
    if slope is not None:
        return make("Swish", x, alpha=2 * slope)
    return make("Gelu", x, approximate="tanh") if _is(argument, TANH, x) else None


def _sigmoid(x: Value, form: Affine) -> Value | None:
    """x * sigmoid(k x) -> Swish(x, k);  x * sigmoid(2 sqrt(2/pi) * (x + 0.044715 x^3)) -> Gelu(x, tanh)"""
    argument = polynomial(operands(form.core)[0], x)
    if not _is_bare(form):
        return None
    slope = _slope(argument)
    if slope is not None:
        return make("Swish", x, alpha=slope)
    return make("Gelu", x, approximate="tanh") if _is(argument, LOGISTIC, x) else None


def _hard_sigmoid(x: Value, form: Affine) -> Value | None:
    """x * HardSigmoid(x, 1/6, 1/2) -> HardSwish(x)"""
    attrs = form.core.node.attrs
    fits = near(attrs.get("alpha", 0.2), 1 / 6, x) and near(attrs.get("beta", 0.5), 0.5, x) and operands(form.core)[0] == x
    return make("HardSwish", x) if fits and _is_bare(form) else None


def _clip(x: Value, form: Affine) -> Value | None:
    """x * clip(x + 3, 0, 6) / 6 -> HardSwish(x)"""
    scaled = {n: c * form.scale for n, c in (polynomial(operands(form.core)[0], x) or {}).items()}
    return make("HardSwish", x) if _is_unit_clip(form) and _is(scaled, {1: 1 / 6, 0: 0.5}, x) else None


def _is_unit_clip(form: Affine) -> bool:
    """Whether a scaled Clip runs from 0 to 1."""
    low, high = (number(v) for v in (*form.core.node.inputs[1:], None, None)[:2])
    return form.offset == 0 and low == 0 and high is not None and near(form.scale * high, 1, form.core)


def _scaled_clip(node: Node, rewriter: Rewriter) -> Value | None:
    """clip(s x + t, 0, h) / h -> HardSigmoid(x, s/h, t/h)"""
    form = affine(node.out)
    if form.core.op != "Clip" or rewriter.uses(form.core) != 1 or not form.core.dtype.is_float or not _is_unit_clip(form):
        return None
    inside = affine(operands(form.core)[0])
    return make("HardSigmoid", inside.core, alpha=inside.scale * form.scale, beta=inside.offset * form.scale)


def _logistic(node: Node, rewriter: Rewriter) -> Value | None:
    """1 / (1 + exp(-x)) -> Sigmoid(x);  y / (1 + exp(-x)) -> y * Sigmoid(x)"""
    below = operands(node.out)[-1]
    form = affine(below)
    if form.core.op != "Exp" or (form.scale, form.offset) != (1, 1) or not below.dtype.is_float:
        return None
    exponent = operands(form.core)[0]
    x = operands(exponent)[0] if exponent.op == "Neg" else make("Neg", exponent)
    sigmoid = make("Sigmoid", x)
    return sigmoid if node.op == "Reciprocal" else make("Mul", operands(node.out)[0], sigmoid)


GATES: dict[str, Callable[[Value, Affine], Value | None]] = {
    "Erf": _erf, "Tanh": _tanh, "Sigmoid": _sigmoid, "HardSigmoid": _hard_sigmoid, "Clip": _clip,
}  # fmt: skip

RULES = (
    Rule("gated", frozenset({"Mul", "Div"}), _gated),
    Rule("scaled_clip", frozenset({"Mul", "Div"}), _scaled_clip),
    Rule("logistic", frozenset({"Reciprocal", "Div"}), _logistic),
)
