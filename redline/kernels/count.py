"""An extent that the model computes: dims[slot] = out[0] = value, kept between 0 and ``most``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.kernels import cexpr
from redline.kernels.ctext import block
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.found import Schedule, schedules, tell
from redline.kernels.parts import dims
from redline.kernels.problem import CpuTarget, Family, KernelCode, Operand


@dataclass(frozen=True)
class Problem:
    """``value`` is an int64 over no coordinates."""

    reads: tuple[Operand, ...]
    out: Operand
    value: Expr
    most: int
    slot: int

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def flops(self) -> int:
        return 1


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    statements, value = cexpr.Renderer(problem.reads, [], extents=()).render(problem.value)
    body = [
        *dims(problem.reads, problem.writes),
        *cexpr.pointers(problem.reads, [f"arg{i}" for i in range(len(problem.reads))], first=0),
        *statements,
        f"const int64_t wanted = {value}, most = {problem.most};",
        "const int64_t count = wanted < 0 ? 0 : wanted > most ? most : wanted;",
        f"*(int64_t *)args[{len(problem.reads)}] = count;",
        tell(problem, "count"),
    ]
    text = "\n".join(block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)) + "\n"
    return KernelCode("count", cexpr.prelude(text) + text, 1)


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    return (np.clip(evaluate(problem.value, arrays, (1,)), 0, problem.most),)


FAMILY = Family("count", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
