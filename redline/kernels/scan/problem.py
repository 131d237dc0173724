"""What a scan computes, along the trailing axis of ``out``:

    out[i..., j] = body(i..., 0) + ... + body(i..., j)     (or the product; from the end if ``reverse``)

Exclusive scans leave out the last term. Additions happen one after the other, in the order of the axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from redline.base.errors import RedlineError, closest
from redline.base.shapes import size
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.functions import compute_type
from redline.kernels.problem import CpuTarget, Operand

KINDS: dict[str, tuple[Callable[..., np.ndarray], int]] = {"sum": (np.cumsum, 0), "prod": (np.cumprod, 1)}
ELEMENTS_PER_CHUNK = 8 << 10


@dataclass(frozen=True)
class Problem:
    """``body`` has the type of ``out``; 16-bit floats are summed in float32."""

    kind: str
    reads: tuple[Operand, ...]
    out: Operand
    body: Expr
    exclusive: bool = False
    reverse: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RedlineError("scan", f"unknown kind {self.kind!r}", closest(self.kind, KINDS))
        if self.body.dtype != self.out.dtype or not self.out.shape:
            seen = f"a body of {self.body.dtype} for {self.out.dtype}{list(self.out.shape)}"
            raise RedlineError("scan", seen, "the types are equal and the rank is at least 1")

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def flops(self) -> int:
        return size(self.out.shape)


@dataclass(frozen=True)
class Schedule:
    """Into how many chunks of lines to cut the work, at most."""

    max_chunks: int = 1


def schedules(problem: Problem, target: CpuTarget) -> list[Schedule]:
    lines = size(problem.out.shape[:-1])
    return [Schedule(max(1, min(lines, size(problem.out.shape) // ELEMENTS_PER_CHUNK, 8 * target.num_threads)))]


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    function, start = KINDS[problem.kind]
    values = evaluate(problem.body, arrays, problem.out.shape).astype(compute_type(problem.out.dtype).numpy)
    values = values[..., ::-1] if problem.reverse else values
    with np.errstate(all="ignore"):
        result = function(values, axis=-1, dtype=values.dtype)
    if problem.exclusive:
        result = np.concatenate([np.full_like(result[..., :1], start), result[..., :-1]], axis=-1)
    return ((result[..., ::-1] if problem.reverse else result).astype(problem.out.dtype.numpy),)
