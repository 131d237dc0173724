"""Scales of quantized tensors as data: steps that differ in nothing else are one problem, so one kernel and one timing.

In: a program for a GPU. Out: the same, in which numbers with fractions in the expressions of products and loops over bytes
come from a constant of the step's own, number i being its element i. Whole numbers are part of the problem: they are where a
grid ends.
"""

from dataclasses import replace

import numpy as np

from redline.base.dtypes import float32
from redline.kernels import conv, depthwise, matmul, nest
from redline.kernels.expr import Call, Expr, Lit, Load, integer, transform
from redline.kernels.problem import Problem
from redline.lower.editing import Editing
from redline.lower.program import Program, Step, View

PRODUCTS = (conv.Problem, depthwise.Problem, matmul.Problem)


def rewrite(program: Program) -> Program:
    """``program`` with the scales of its quantized tensors as data."""
    editing, steps = Editing(program), []
    for step in program.steps:
        lifted = _Lifting(len(step.reads))
        problem = _lifted(step.problem, lifted) if _is_quantized(step) else step.problem
        if lifted.numbers:
            view = editing.constant(np.array(list(lifted.numbers), np.float32))
            step = replace(step, problem=_reading(problem, view), reads=(*step.reads, view))
        steps.append(step)
    return editing.finished(steps)


def _is_quantized(step: Step) -> bool:
    return any(view.dtype.size == 1 for view in (*step.reads, *step.writes))


class _Lifting:
    """Numbers taken out of expressions, in the order in which they were met; they will be read operand ``operand``."""

    def __init__(self, operand: int) -> None:
        self.operand = operand
        self.numbers: dict[float, int] = {}

    def of(self, expr: Expr) -> Expr:
        return transform(expr, self._taken)

    def _taken(self, node: Expr) -> Expr | None:
        """An exponent stays: some are other functions."""
        if isinstance(node, Call) and node.fn == "pow":
            return node
        if not isinstance(node, Lit) or node.dtype != float32 or not _is_scale(float(node.value)):
            return None
        place = self.numbers.setdefault(float(node.value), len(self.numbers))
        return Load(float32, self.operand, (integer(place),))


def _is_scale(value: float) -> bool:
    return bool(np.isfinite(value)) and value != np.rint(value)


def _lifted(problem: Problem, lifted: _Lifting) -> Problem:
    if isinstance(problem, PRODUCTS):
        return replace(problem, epilogue=lifted.of(problem.epilogue))
    if isinstance(problem, nest.Problem) and problem.reduction is None:
        return replace(problem, bodies=tuple(map(lifted.of, problem.bodies)))
    return problem


def _reading(problem: Problem, view: View) -> Problem:
    """``problem`` with one more read operand."""
    if isinstance(problem, PRODUCTS):
        return replace(problem, extra=(*problem.extra, view.operand))
    assert isinstance(problem, nest.Problem), "no other is lifted from"
    return replace(problem, reads=(*problem.reads, view.operand))
