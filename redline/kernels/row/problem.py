"""What a row kernel computes, for each row of n elements along the trailing axis:

x[j]         = prologue(i..., j)
softmax      y[j] = exp(x[j] - max x) / sum exp(x - max x)
log_softmax  y[j] = x[j] - max x - log(sum exp(x - max x))
layer_norm   y[j] = (x[j] - mean x) / sqrt(mean (x - mean x)^2 + epsilon)
rms_norm     y[j] = x[j] / sqrt(mean x^2 + epsilon)
writes[0][i..., j] = epilogue(y[j], i..., j)        writes[1][i..., j] = x[j], if there is a second write
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import dtypes
from redline.base.errors import RedlineError, closest
from redline.base.extents import nominal
from redline.base.shapes import StaticShape, size
from redline.kernels import evaluate
from redline.kernels.expr import Call, Expr, walk
from redline.kernels.problem import CpuTarget, Operand

KINDS = ("softmax", "log_softmax", "layer_norm", "rms_norm")
ELEMENTS_PER_CHUNK = 2 << 10
CHUNKS_PER_THREAD = 8


@dataclass(frozen=True)
class Problem:
    """``prologue`` gives x, of type float32 or float64; ``epilogue`` works on ``Acc(0)`` of that type, which is y."""

    kind: str
    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    prologue: Expr
    epilogue: Expr
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RedlineError("row", f"unknown kind {self.kind!r}", closest(self.kind, KINDS))
        if self.prologue.dtype not in (dtypes.float32, dtypes.float64):
            raise RedlineError("row", f"a prologue of type {self.prologue.dtype}", "allowed: float32, float64")
        shapes = {write.shape for write in self.writes}
        if len(self.writes) not in (1, 2) or len(shapes) != 1 or not self.shape:
            raise RedlineError("row", f"writes of shapes {sorted(shapes)}", "allowed: one or two, of one shape of rank >= 1")
        if self.epilogue.dtype != self.writes[0].dtype:
            raise RedlineError("row", f"an epilogue of type {self.epilogue.dtype} for a write of {self.writes[0].dtype}")

    @property
    def shape(self) -> StaticShape:
        return self.writes[0].shape

    @property
    def length(self) -> int:
        """Elements of a row."""
        return self.shape[-1]

    @property
    def num_rows(self) -> int:
        return size(self.shape[:-1])

    @property
    def flops(self) -> int:
        calls = sum(isinstance(node, Call) for expr in (self.prologue, self.epilogue) for node in walk(expr))
        return size(self.shape) * (calls + 5)


@dataclass(frozen=True)
class Schedule:
    """Into how many chunks of rows to cut the work, at most."""

    max_chunks: int = 1


def schedules(problem: Problem, target: CpuTarget) -> list[Schedule]:
    if target.num_threads == 1:
        return [Schedule(1)]
    wanted = size(problem.shape) // ELEMENTS_PER_CHUNK
    return [Schedule(max(1, min(nominal(wanted), nominal(problem.num_rows), CHUNKS_PER_THREAD * target.num_threads)))]


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    x = evaluate.evaluate(problem.prologue, arrays, problem.shape)
    with np.errstate(all="ignore"):
        y = _normalised(problem, x.astype(np.float64)).astype(x.dtype)
    out = evaluate.evaluate(problem.epilogue, arrays, problem.shape, [y])
    return (out, *(evaluate.cast(x, write.dtype) for write in problem.writes[1:]))


def _normalised(problem: Problem, x: np.ndarray) -> np.ndarray:
    if x.size == 0:
        return x
    if problem.kind in ("softmax", "log_softmax"):
        shifted = x - x.max(-1, keepdims=True)
        total = np.exp(shifted).sum(-1, keepdims=True)
        return np.asarray(np.exp(shifted) / total if problem.kind == "softmax" else shifted - np.log(total))
    centred = x - x.mean(-1, keepdims=True) if problem.kind == "layer_norm" else x
    return np.asarray(centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + problem.epsilon))
