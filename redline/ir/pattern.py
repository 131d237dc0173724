"""Patterns: what a piece of graph must look like for a rule to fire.

    gelu = Pat("Mul", Pat("Mul", x := Any_("x"), Pat("Add", Pat("Erf", ...), Const(1.0))), Const(0.5))

``match(pattern, value)`` gives the bindings of the named parts, or None. Operators named in ``commutative`` try both
orders of two inputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from redline.ir.graph import Value

Bindings = dict[str, Value]


@dataclass(frozen=True)
class Any_:
    """Any value; the same name must bind the same value everywhere."""

    name: str


@dataclass(frozen=True)
class Const:
    """A constant. With ``value``: all its elements are within ``rtol`` of it. With ``name``: it is bound."""

    value: float | None = None
    name: str = ""
    rtol: float = 1e-3


class Pat:
    """Output 0 of a node ``op`` (or any of a tuple of ops) whose leading inputs match; ``name`` binds its value."""

    def __init__(self, op: str | tuple[str, ...], *inputs: "Pattern", name: str = "") -> None:
        self.ops = (op,) if isinstance(op, str) else op
        self.inputs, self.name = inputs, name


Pattern = Any_ | Const | Pat
COMMUTATIVE = frozenset({"Add", "Mul"})


def match(pattern: Pattern, value: Value | None) -> Bindings | None:
    """The first way in which ``value`` fits ``pattern``, as the values of its named parts; None if there is none."""
    return next(_match(pattern, value, {}), None)


def _bind(name: str, value: Value, bound: Bindings) -> Iterator[Bindings]:
    if not name:
        yield bound
    elif bound.get(name, value) == value:
        yield {**bound, name: value}


def _match(pattern: Pattern, value: Value | None, bound: Bindings) -> Iterator[Bindings]:
    if value is None:
        return
    if isinstance(pattern, Any_):
        yield from _bind(pattern.name, value, bound)
    elif isinstance(pattern, Const):
        array = value.array
        if array is not None and _close(array, pattern):
            yield from _bind(pattern.name, value, bound)
    elif value.op in pattern.ops and value.index == 0 and len(value.node.inputs) >= len(pattern.inputs):
        inputs = value.node.inputs[: len(pattern.inputs)]
        orders = [inputs, inputs[::-1]] if value.op in COMMUTATIVE and len(inputs) == 2 else [inputs]
        for order in orders:
            for inner in _match_all(pattern.inputs, order, bound):
                yield from _bind(pattern.name, value, inner)


def _match_all(patterns: tuple[Pattern, ...], values: tuple[Value | None, ...], bound: Bindings) -> Iterator[Bindings]:
    if not patterns:
        yield bound
        return
    for inner in _match(patterns[0], values[0], bound):
        yield from _match_all(patterns[1:], values[1:], inner)


def _close(array: np.ndarray, pattern: Const) -> bool:
    if pattern.value is None:
        return True
    if array.size == 0 or array.dtype.kind not in "fiub":
        return False
    return bool(np.all(np.abs(array.astype(np.float64) - pattern.value) <= pattern.rtol * abs(pattern.value)))
