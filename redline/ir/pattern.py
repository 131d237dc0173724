"""Patterns: what a piece of graph must look like for a rule to fire.

    swish = Pat("Mul", Any_("x"), Pat("Sigmoid", Any_("x")), any_order=True)

``match(pattern, value)`` gives the bindings of the named parts, or None. With ``any_order`` the two inputs are tried in
both orders; backtracking is complete, so keep patterns small.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from redline.base import dtypes
from redline.ir.graph import Value

Bindings = dict[str, Value]


@dataclass(frozen=True)
class Any_:
    """Any value; the same name must bind the same value everywhere."""

    name: str


@dataclass(frozen=True)
class Const:
    """A constant. With ``value``: it is not empty and each element is within ``rtol``, or the rounding of its own type, of it.

    With ``name`` it is bound. Constants are the same value only when they are the same node, so eliminate equal ones first.
    """

    value: float | None = None
    name: str = ""
    rtol: float = 1e-5


class Pat:
    """Output 0 of a node ``op`` (or any of a tuple of ops) whose leading inputs match; ``name`` binds its value."""

    def __init__(self, op: str | tuple[str, ...], *inputs: "Pattern", name: str = "", any_order: bool = False) -> None:
        self.ops = (op,) if isinstance(op, str) else op
        self.inputs, self.name, self.any_order = inputs, name, any_order


Pattern = Any_ | Const | Pat


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
        orders = [inputs, inputs[::-1]] if pattern.any_order else [inputs]
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
    kind = dtypes.from_numpy(array.dtype)
    rtol = max(pattern.rtol, float(ml_dtypes.finfo(array.dtype).eps)) if kind.is_float else 0.0
    return array.size > 0 and bool(np.all(np.abs(array.astype(np.float64) - pattern.value) <= rtol * abs(pattern.value)))
