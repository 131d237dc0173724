"""Reading small formulas out of a graph whichever way they were written: as products, as a*f + b, as polynomials."""

from collections.abc import Callable
from dataclasses import dataclass

from redline.ir import Value
from redline.passes.constants import number

MAX_DEGREE, MAX_DEPTH = 8, 12
Polynomial = dict[int, float]  # degree -> coefficient


@dataclass(frozen=True)
class Affine:
    """scale * core + offset"""

    scale: float
    core: Value
    offset: float


def operands(value: Value) -> tuple[Value, ...]:
    """The inputs of the node behind ``value`` that are there."""
    return tuple(v for v in value.node.inputs if v is not None)


def affine(value: Value) -> Affine:
    """``value`` as an affine function, by numbers, of the first value above it that is none."""
    scale, offset = 1.0, 0.0
    for _ in range(MAX_DEPTH):
        step = affine_step(value)
        if step is None:
            break
        scale, offset, value = scale * step.scale, scale * step.offset + offset, step.core
    return Affine(scale, value, offset)


def affine_step(value: Value) -> Affine | None:
    """The negation, or the operation with one number, that made ``value``."""
    if value.op == "Neg":
        return Affine(-1, operands(value)[0], 0)
    if value.op not in ("Add", "Sub", "Mul", "Div"):
        return None
    a, b = operands(value)
    left, right = number(a), number(b)
    if right is not None and a.type == value.type:
        if value.op == "Div":
            return Affine(1 / right, a, 0) if right else None
        return {"Add": Affine(1, a, right), "Sub": Affine(1, a, -right), "Mul": Affine(right, a, 0)}[value.op]
    if left is not None and b.type == value.type and value.op != "Div":
        return {"Add": Affine(1, b, left), "Sub": Affine(-1, b, left), "Mul": Affine(left, b, 0)}[value.op]
    return None


def product(value: Value, uses: Callable[[Value], int]) -> tuple[float, list[Value]]:
    """``value`` as a number times the factors of a tree of multiplications; what is read elsewhere too is one factor."""
    coefficient, factors, stack = 1.0, [], [value]
    while stack:
        top = stack.pop()
        step = affine_step(top)
        if top != value and uses(top) > 1:
            factors.append(top)
        elif step is not None and step.offset == 0:
            coefficient *= step.scale
            stack.append(step.core)
        elif top.op == "Mul" and all(v.type == top.type for v in operands(top)) and len(factors) < MAX_DEGREE:
            stack += operands(top)
        else:
            factors.append(top)
    return coefficient, factors


def polynomial(value: Value, x: Value, depth: int = 0) -> Polynomial | None:
    """The coefficients of ``value`` as a polynomial in ``x``; None where it is none, or one of a high degree."""
    if value == x:
        return {1: 1.0}
    constant = number(value)
    if constant is not None:
        return {0: constant}
    if depth == MAX_DEPTH or value.op not in ("Add", "Sub", "Neg", "Mul", "Div", "Pow"):
        return None
    parts = [polynomial(v, x, depth + 1) for v in operands(value)]
    if any(part is None for part in parts):
        return None
    return _combine(value.op, [part for part in parts if part is not None])


def _combine(op: str, parts: list[Polynomial]) -> Polynomial | None:
    first, last = parts[0], parts[-1]
    if op == "Neg":
        return {n: -c for n, c in first.items()}
    if op in ("Add", "Sub"):
        sign = 1 if op == "Add" else -1
        return {n: first.get(n, 0) + sign * last.get(n, 0) for n in first.keys() | last.keys()}
    if op == "Mul":
        return _times(first, last)
    if last.keys() != {0} or last[0] == 0:
        return None
    if op == "Div":
        return {n: c / last[0] for n, c in first.items()}
    result: Polynomial | None = {0: 1.0}
    if last[0] not in range(1, MAX_DEGREE + 1):
        return None
    for _ in range(int(last[0])):
        result = result and _times(result, first)
    return result


def _times(a: Polynomial, b: Polynomial) -> Polynomial | None:
    if max(a) + max(b) > MAX_DEGREE:
        return None
    result: Polynomial = {}
    for n, c in a.items():
        for m, d in b.items():
            result[n + m] = result.get(n + m, 0) + c * d
    return result
