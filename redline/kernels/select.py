"""Where a condition holds: out[0], out[1], ... are the i < length, in order, for which it does; dims[slot] is their number.

What stands behind them in ``out`` is undefined.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base.dtypes import bool_, int64
from redline.base.errors import RedlineError
from redline.base.extents import high
from redline.kernels import cexpr
from redline.kernels.ctext import block, loop
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.found import Schedule, schedules, tell
from redline.kernels.parts import dims
from redline.kernels.problem import CpuTarget, Family, KernelCode, Operand


@dataclass(frozen=True)
class Problem:
    """``condition`` is over one coordinate, below ``length``; ``out`` has room for as many positions."""

    reads: tuple[Operand, ...]
    out: Operand
    condition: Expr
    length: int
    slot: int

    def __post_init__(self) -> None:
        if self.condition.dtype != bool_ or self.out.dtype != int64 or len(self.out.shape) != 1:
            seen = f"positions of {self.condition.dtype} in {self.out.dtype}{list(self.out.shape)}"
            raise RedlineError("select", seen, "a condition of bool, and a vector of int64")

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def flops(self) -> int:
        return self.length


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    """Every position is written where the next one that counts belongs, so nothing depends on a guess at the data."""
    assert high(problem.out.shape[0]) >= high(problem.length), "every position has room"
    statements, value = cexpr.Renderer(problem.reads, ["i"], extents=(problem.length,)).render(problem.condition)
    step = problem.out.strides[0]
    body = [
        *dims(problem.reads, problem.writes),
        *cexpr.pointers(problem.reads, [f"arg{i}" for i in range(len(problem.reads))], first=0),
        f"int64_t *restrict out = args[{len(problem.reads)}], count = 0;",
        *loop("i", 0, problem.length, [*statements, f"out[count * {step}] = i;", f"count += {value};"]),
        tell(problem, "count"),
    ]
    text = "\n".join(block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)) + "\n"
    return KernelCode("select", cexpr.prelude(text) + text, 1)


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    found = np.flatnonzero(evaluate(problem.condition, arrays, (problem.length,)))
    return (np.pad(found, (0, max(0, problem.out.shape[0] - len(found))))[: problem.out.shape[0]],)


FAMILY = Family("select", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
