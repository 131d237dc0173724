"""What a sort computes, for each row of n keys along the trailing axis:

    order       = the positions of the row, largest key first (or smallest), equal keys in order of position
    values[j]   = key(order[j]),    indices[j] = order[j]    for j < k, the trailing extent of the writes

NaN counts as the largest key.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base.errors import RedlineError
from redline.base.extents import nominal
from redline.base.shapes import StaticShape, size
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.functions import compute_type
from redline.kernels.problem import CpuTarget, Operand

KEYS_PER_CHUNK = 4 << 10


@dataclass(frozen=True)
class Problem:
    """``key`` is over the coordinates (row..., position), position below ``length``; ``indices`` is of an integer type.

    ``count_is_found``: by a step before, which keeps it within the length.
    """

    reads: tuple[Operand, ...]
    values: Operand
    indices: Operand
    key: Expr
    length: int
    largest: bool = True
    count_is_found: bool = False

    def __post_init__(self) -> None:
        if self.values.shape != self.indices.shape or not self.shape or self._asks_too_much:
            seen = f"writes of {list(self.values.shape)} and {list(self.indices.shape)} for rows of {self.length}"
            raise RedlineError("sort", seen, "allowed: equal shapes with at most as many elements in a row")
        if self.key.dtype != self.values.dtype or not self.indices.dtype.is_integer:
            seen = f"keys of {self.key.dtype} for values of {self.values.dtype} and indices of {self.indices.dtype}"
            raise RedlineError("sort", seen, "keys have the type of the values, indices are integers")

    @property
    def _asks_too_much(self) -> bool:
        return not self.count_is_found and self.count > self.length

    @property
    def shape(self) -> StaticShape:
        return self.values.shape

    @property
    def count(self) -> int:
        """How many of each row are asked for."""
        return self.shape[-1]

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.values, self.indices)

    @property
    def extents(self) -> StaticShape:
        return (*self.shape[:-1], self.length)

    @property
    def flops(self) -> int:
        return size(self.extents) * max(1, nominal(self.length).bit_length())


@dataclass(frozen=True)
class Schedule:
    """Into how many chunks of rows to cut the work, at most."""

    max_chunks: int = 1


def schedules(problem: Problem, target: CpuTarget) -> list[Schedule]:
    rows, elements = nominal(size(problem.shape[:-1])), nominal(size(problem.extents))
    return [Schedule(max(1, min(rows, elements // KEYS_PER_CHUNK, 8 * target.num_threads)))]


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    keys = evaluate(problem.key, arrays, problem.extents)
    wide = keys.astype(compute_type(problem.key.dtype).numpy)
    if problem.largest:  # an ascending stable sort of the reversed row, read backwards
        order = problem.length - 1 - np.argsort(wide[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(wide, axis=-1, kind="stable")
    order = order[..., : problem.count]
    return np.take_along_axis(keys, order, -1), order.astype(problem.indices.dtype.numpy)
