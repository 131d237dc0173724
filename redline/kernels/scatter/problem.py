"""What a scatter computes:

    out[i...] = initial(i...)                                   for every element of out
    out[place(u...)] = value(u...), or fold(out[...], value)    for every u below ``extents``, in row-major order

A place outside of ``out`` is left out. Later values win where several go to one place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import dtypes
from redline.base.errors import RedlineError, closest
from redline.base.shapes import StaticShape, size
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.problem import CpuTarget, Operand

FOLDS = {"none": None, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True)
class Problem:
    """``initial`` is over the coordinates of out; ``place`` (int64, one an axis of out) and ``value`` over ``extents``."""

    reads: tuple[Operand, ...]
    out: Operand
    initial: Expr
    extents: StaticShape
    place: tuple[Expr, ...]
    value: Expr
    fold: str = "none"

    def __post_init__(self) -> None:
        if self.fold not in FOLDS:
            raise RedlineError("scatter", f"unknown fold {self.fold!r}", closest(self.fold, FOLDS))
        if len(self.place) != len(self.out.shape) or any(p.dtype != dtypes.int64 for p in self.place):
            seen = f"a place of {len(self.place)} coordinates in {list(self.out.shape)}"
            raise RedlineError("scatter", seen, "one int64 an axis")
        if {self.initial.dtype, self.value.dtype} != {self.out.dtype}:
            seen = f"values of {self.initial.dtype} and {self.value.dtype} for an output of {self.out.dtype}"
            raise RedlineError("scatter", seen, "all have one type")

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def flops(self) -> int:
        return size(self.extents)


@dataclass(frozen=True)
class Schedule:
    """There is one way: the order of the values matters, so the work is not cut."""


def schedules(problem: Problem, target: CpuTarget) -> list[Schedule]:
    return [Schedule()]


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    out = evaluate(problem.initial, arrays, problem.out.shape)
    place = [evaluate(p, arrays, problem.extents) for p in problem.place]
    value = evaluate(problem.value, arrays, problem.extents)
    inside = np.ones(problem.extents, bool)
    for coordinate, extent in zip(place, problem.out.shape, strict=True):
        inside &= (coordinate >= 0) & (coordinate < extent)
    fold = FOLDS[problem.fold]
    for u in np.argwhere(inside):
        at, new = tuple(int(p[tuple(u)]) for p in place), value[tuple(u)]
        with np.errstate(all="ignore"):
            out[at] = new if fold is None else fold(out[at], new)
    return (out,)
