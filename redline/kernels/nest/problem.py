"""What a loop nest computes.

    without reduction   writes[k][i...] = bodies[k](i...)
    with a reduction    acc[k](i...)    = reduce over r... of bodies[k](i..., r...)
                        writes[k][i...] = epilogues[k](acc, i...)

``i...`` are the coordinates of the writes, which all have one shape; ``r...`` the reduced coordinates, that follow them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import RedlineError, closest
from redline.base.extents import nominal
from redline.base.shapes import StaticShape, size
from redline.kernels.accumulator import ARG_KINDS, KINDS
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Acc, Call, Expr, walk
from redline.kernels.functions import extreme
from redline.kernels.problem import CpuTarget, Operand

BYTES_PER_CHUNK = 32 << 10
CHUNKS_PER_THREAD = 8
COST_OF_CALL = {"exp": 24, "tanh": 24, "erf": 24, "sigmoid": 24, "log": 24, "pow": 64, "sin": 64, "cos": 64, "div": 4}


@dataclass(frozen=True)
class Reduction:
    """``kind`` over coordinates below ``extents``.

    max and min pass NaN on. The arg kinds give the row-major position of the first (or last) extreme among the reduced
    coordinates; a NaN counts as the extreme. A reduction over nothing gives 0, 1, or the lowest or highest value.
    """

    kind: str
    extents: StaticShape

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RedlineError("nest", f"unknown reduction {self.kind!r}", closest(self.kind, KINDS))

    def acc_dtype(self, body: DType) -> DType:
        """The type of the reduced value: that of the body, int64 for positions, float32 for sums of 16-bit floats."""
        if self.kind in ARG_KINDS:
            return dtypes.int64
        return dtypes.float32 if self.kind in ("sum", "prod") and body.is_float and body.size == 2 else body


@dataclass(frozen=True)
class Problem:
    """``epilogues`` empty: the reduced values themselves."""

    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    bodies: tuple[Expr, ...]
    reduction: Reduction | None = None
    epilogues: tuple[Expr, ...] = ()

    def __post_init__(self) -> None:
        values = self.results
        if len(values) != len(self.writes) or (self.epilogues and self.reduction is None):
            raise RedlineError("nest", f"{len(values)} values for {len(self.writes)} writes", "", "this is a bug in Redline")
        for value, write in zip(values, self.writes, strict=True):
            if value.dtype != write.dtype or write.shape != self.shape:
                seen = f"a value of {value.dtype} for {write.dtype}{list(write.shape)} in a nest over {list(self.shape)}"
                raise RedlineError("nest", seen, "all writes have one shape and the type of their value")

    @property
    def shape(self) -> StaticShape:
        return self.writes[0].shape

    @property
    def results(self) -> tuple[Expr, ...]:
        """The written values: over Acc where there is a reduction."""
        if self.reduction is None or self.epilogues:
            return self.epilogues or self.bodies
        return tuple(Acc(self.reduction.acc_dtype(body.dtype), slot) for slot, body in enumerate(self.bodies))

    @property
    def domain(self) -> StaticShape:
        """The extents of all loops, reduced ones last."""
        return self.shape + (self.reduction.extents if self.reduction else ())

    @property
    def flops(self) -> int:
        inner = size(self.domain) * sum(_num_calls(body) + (self.reduction is not None) for body in self.bodies)
        return inner + size(self.shape) * sum(map(_num_calls, self.epilogues))


def _num_calls(expr: Expr) -> int:
    return sum(isinstance(node, Call) and node.dtype.is_float for node in walk(expr))


@dataclass(frozen=True)
class Schedule:
    """Into how many chunks to cut each part of the work, at most."""

    max_chunks: int = 1


def schedules(problem: Problem, target: CpuTarget) -> list[Schedule]:
    """One chunk where there is one thread or little work; else several a thread, so that none waits long for another."""
    if target.num_threads == 1:
        return [Schedule(1)]
    wanted = nominal(size(problem.domain)) * cost_of_element(problem) // BYTES_PER_CHUNK
    return [Schedule(max(1, min(wanted, CHUNKS_PER_THREAD * target.num_threads)))]


def cost_of_element(problem: Problem) -> int:
    """The work of one innermost step, in bytes of memory traffic that take as long."""
    nodes = {node for body in problem.bodies for node in walk(body)}
    calls = sum(COST_OF_CALL.get(node.fn, 1) for node in nodes if isinstance(node, Call))
    moved = sum(read.dtype.size for read in problem.reads) + sum(write.dtype.size for write in problem.writes)
    return max(1, calls + moved)


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    values = [evaluate(body, arrays, problem.domain) for body in problem.bodies]
    if problem.reduction is None:
        return tuple(values)
    with np.errstate(all="ignore"):
        reduced = [_reduced(problem.reduction, value, len(problem.shape)) for value in values]
    return tuple(evaluate(result, arrays, problem.shape, reduced) for result in problem.results)


def _reduced(reduction: Reduction, values: np.ndarray, rank: int) -> np.ndarray:
    dtype = reduction.acc_dtype(dtypes.from_numpy(values.dtype)).numpy
    flat = values.reshape(*values.shape[:rank], size(reduction.extents))
    if reduction.kind in ARG_KINDS:
        return _position(reduction.kind, flat)
    if reduction.kind in ("sum", "prod"):
        wide = np.float64 if dtype.kind == "f" else dtype
        return getattr(np, reduction.kind)(flat, axis=-1, dtype=wide).astype(dtype)
    limit = extreme(dtypes.from_numpy(dtype), lowest=reduction.kind == "max")
    fold = np.maximum if reduction.kind == "max" else np.minimum
    return np.asarray(fold.reduce(flat.astype(_comparable(dtype)), axis=-1, initial=limit)).astype(dtype)


def _comparable(dtype: np.dtype) -> np.dtype:
    """A type that numpy reduces well: ml_dtypes has no reductions with an initial value."""
    return np.dtype(np.float32) if dtype.kind not in "fiub" else dtype


def _position(kind: str, flat: np.ndarray) -> np.ndarray:
    if flat.shape[-1] == 0:
        return np.zeros(flat.shape[:-1], np.int64)
    last = kind.endswith("_last")
    keys = flat[..., ::-1] if last else flat
    keys = keys.astype(np.float32) if keys.dtype.kind not in "fiub" else keys
    found = keys.argmax(-1) if kind.startswith("argmax") else keys.argmin(-1)
    return np.asarray(flat.shape[-1] - 1 - found if last else found, np.int64)
