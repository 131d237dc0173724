"""Values of known bounds on their way to depthwise convolutions, in 16 bits of fixed point in place of a float's.

In: a program for a GPU, whose depthwise filters are float32. Out: the same, in which what lies between 0 and ``c`` (a ReLU6
gives c = 6) and only depthwise convolutions read is held as

    rint(x * (LIMIT - 1) / c)

which is within c / 65534 of x, where float16 is within x / 2048. No matrix unit multiplies there, so the numbers may be
integers; those below LIMIT become floats in one instruction. The filters take the factor c / (LIMIT - 1). A NaN becomes a
number.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from redline.base.dtypes import NARROW_FLOATS, float32, int32, uint16
from redline.kernels import conv, depthwise, matmul
from redline.kernels.depthwise.problem import LIMIT
from redline.kernels.expr import Call, Expr, Lit, call, cast, lit
from redline.lower.editing import Editing
from redline.lower.program import Buffer, Program, Step, View

HIGHEST = 8.0  # of a bound: beyond, most values are so small beside it that float16 holds them better
PRODUCTS = (conv.Problem, matmul.Problem)


def rewrite(program: Program) -> Program:
    """``program`` with the bounded inputs of its depthwise convolutions in fixed point."""
    bounds = {buffer: bound for buffer in program.buffers if (bound := _bound(buffer, program)) is not None}
    return _Rewriting(program, bounds).run() if bounds else program


def _bound(buffer: Buffer, program: Program) -> float | None:
    """The one bound of all that is written to ``buffer``; None where it has none, or others read it too."""
    if buffer.kind != "temp" or buffer.dtype not in NARROW_FLOATS or buffer.dtype.size != 2:
        return None
    readers = program.readers(buffer)
    if not readers or not all(place == 0 and _takes(step) for step, place in readers):
        return None
    found = {_written_bound(step) for step in program.writers(buffer)}
    return found.pop() if len(found) == 1 else None


def _takes(step: Step) -> bool:
    problem = step.problem
    return (
        isinstance(problem, depthwise.Problem) and problem.w.constant and problem.w.dtype == float32 and problem.pad_value == 0
    )


def _written_bound(step: Step) -> float | None:
    """``c`` where the step's result is min(max(..., 0), c), in either order."""
    if not isinstance(step.problem, PRODUCTS):
        return None
    (low, high), expr = (-np.inf, np.inf), _value(step.problem.epilogue)
    while isinstance(expr, Call) and expr.fn in ("max", "min") and isinstance(expr.args[1], Lit):
        number = float(expr.args[1].value)
        low, high = (max(low, number), high) if expr.fn == "max" else (low, min(high, number))
        expr = expr.args[0]
    return float(high) if low == 0 < high <= HIGHEST else None


def _value(epilogue: Expr) -> Expr:
    """A result before it is rounded to what it is stored as."""
    if isinstance(epilogue, Call) and epilogue.fn == "cast" and epilogue.args[0].dtype == float32:
        return epilogue.args[0]
    return epilogue


class _Rewriting(Editing):
    def __init__(self, program: Program, bounds: Mapping[Buffer, float]) -> None:
        super().__init__(program)
        self.bounds, self.fixed = bounds, {buffer: replace(buffer, dtype=uint16) for buffer in bounds}
        self.buffers = [self.fixed.get(b, b) for b in program.buffers]

    def run(self) -> Program:
        return self.finished([self._read(self._written(step)) for step in self.program.steps])

    def _view(self, view: View) -> View:
        return replace(view, buffer=self.fixed.get(view.buffer, view.buffer))

    def _written(self, step: Step) -> Step:
        problem, bound = step.problem, self.bounds.get(step.writes[0].buffer)
        if bound is None:
            return step
        assert isinstance(problem, PRODUCTS), "no other is bounded"
        scaled = call("mul", _value(problem.epilogue), lit((LIMIT - 1) / bound, float32))
        whole = call("rint32", scaled, dtype=int32)
        out = self._view(step.writes[0])
        return replace(step, problem=replace(problem, out=out.operand, epilogue=cast(whole, uint16)), writes=(out,))

    def _read(self, step: Step) -> Step:
        problem, bound = step.problem, self.bounds.get(step.reads[0].buffer) if step.reads else None
        if bound is None:
            return step
        assert isinstance(problem, depthwise.Problem), "no other reads it"
        x, filters = self._view(step.reads[0]), step.reads[1].elements(self.constants)
        w = self.constant((filters.astype(np.float64) * (bound / (LIMIT - 1))).astype(np.float32))
        return replace(step, problem=replace(problem, x=x.operand, w=w.operand, limit=LIMIT), reads=(x, w, *step.reads[2:]))
