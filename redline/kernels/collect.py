"""Rows of picture, class and position of all that suppress.py keeps, one after the other; dims[slot] is their number.

out[k] = (n, c, kept[n, c, j]) for j < counts[n, c], in the order of n, c and j
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.kernels import cexpr
from redline.kernels.ctext import block, loop
from redline.kernels.found import Schedule, schedules, tell
from redline.kernels.parts import dims
from redline.kernels.problem import CpuTarget, Family, KernelCode, Operand


@dataclass(frozen=True)
class Problem:
    """``kept`` [N, C, limit] and ``counts`` [N, C], both int64, into ``out`` [K, 3]."""

    kept: Operand
    counts: Operand
    out: Operand
    slot: int

    @property
    def reads(self) -> tuple[Operand, ...]:
        return (self.kept, self.counts)

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def flops(self) -> int:
        return self.counts.shape[0] * self.counts.shape[1]


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    kept, counts, out = problem.kept.strides, problem.counts.strides, problem.out.strides
    row = [
        f"int64_t *row = out + count++ * {out[0]};",
        f"row[0] = n, row[{out[1]}] = c, row[2 * {out[1]}] = kept[n * {kept[0]} + c * {kept[1]} + j * {kept[2]}];",
    ]
    inner = [f"const int64_t num = counts[n * {counts[0]} + c * {counts[1]}];", *loop("j", 0, "num", row)]
    body = [
        *dims(problem.reads, problem.writes),
        "const int64_t *kept = args[0], *counts = args[1];",
        "int64_t *out = args[2], count = 0;",
        *loop("n", 0, problem.counts.shape[0], loop("c", 0, problem.counts.shape[1], inner)),
        tell(problem, "count"),
    ]
    text = "\n".join(block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)) + "\n"
    return KernelCode("collect", cexpr.prelude(text) + text, 1)


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    kept, counts = arrays
    rows = [(n, c, kept[n, c, j]) for n, c in np.ndindex(*counts.shape) for j in range(counts[n, c])]
    out = np.zeros(problem.out.shape, np.int64)
    out[: len(rows)] = np.array(rows, np.int64).reshape(-1, 3)
    return (out,)


FAMILY = Family("collect", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
