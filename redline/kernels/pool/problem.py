"""What a pool computes, for x of shape [N, spatial..., C] and an output of shape [N, out_spatial..., C]:

i_a(o, k)     = o * stride_a + k * dilation_a - pad_begin_a          along each spatial axis a, for k < kernel_a
max           acc[n, o..., c] = max of x[n, i..., c] over the taps k... that lie inside x; -inf (lowest) if none does
average       acc[n, o..., c] = sum of them / how many they are; with ``count_padding``, taps in the padding count too
out[n, o..., c] = epilogue(acc, n, o..., c)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import RedlineError, closest
from redline.base.extents import nominal
from redline.base.shapes import size
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.functions import compute_type, extreme
from redline.kernels.problem import CpuTarget, Operand

KINDS = ("max", "average")
TAPS_PER_CHUNK = 32 << 10
CHUNKS_PER_THREAD = 8


@dataclass(frozen=True)
class Window:
    """The taps along one spatial axis. Positions beyond ``pad_end`` are never counted as padding."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    pad_begin: int = 0
    pad_end: int = 0


@dataclass(frozen=True)
class Problem:
    """``reads``: x, then what the epilogue loads. ``windows``: one for each spatial axis."""

    kind: str
    reads: tuple[Operand, ...]
    out: Operand
    windows: tuple[Window, ...]
    epilogue: Expr
    count_padding: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RedlineError("pool", f"unknown kind {self.kind!r}", closest(self.kind, KINDS))
        x, out = self.x.shape, self.out.shape
        if len(x) != len(self.windows) + 2 or len(out) != len(x) or (x[0], x[-1]) != (out[0], out[-1]):
            raise RedlineError("pool", f"{list(x)} to {list(out)} with {len(self.windows)} windows do not fit together")
        if self.epilogue.dtype != self.out.dtype:
            raise RedlineError("pool", f"an epilogue of type {self.epilogue.dtype} for an output of {self.out.dtype}")

    @property
    def x(self) -> Operand:
        return self.reads[0]

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def acc(self) -> DType:
        """The type of ``Acc(0)``: that of x, but an average of what is no float64 is a float32."""
        if self.kind == "average":
            return dtypes.float64 if self.x.dtype == dtypes.float64 else dtypes.float32
        return compute_type(self.x.dtype)

    @property
    def flops(self) -> int:
        return size(self.out.shape) * size(window.kernel for window in self.windows)


@dataclass(frozen=True)
class Schedule:
    """Into how many chunks of output rows to cut the work, at most."""

    max_chunks: int = 1


def schedules(problem: Problem, target: CpuTarget) -> list[Schedule]:
    if target.num_threads == 1:
        return [Schedule(1)]
    return [Schedule(max(1, min(nominal(problem.flops) // TAPS_PER_CHUNK, CHUNKS_PER_THREAD * target.num_threads)))]


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    x = arrays[0].astype(problem.acc.numpy if problem.kind == "max" else np.float64)
    begin = extreme(problem.acc, lowest=True) if problem.kind == "max" else 0
    acc = np.full(problem.out.shape, begin, x.dtype)
    count = np.zeros(problem.out.shape, np.int64)
    for taps in product(*(range(window.kernel) for window in problem.windows)):
        values, inside, counted = _tap(problem, x, taps)
        acc = np.where(inside, np.maximum(acc, values) if problem.kind == "max" else acc + values, acc)
        count += counted
    with np.errstate(all="ignore"):
        result = acc if problem.kind == "max" else acc / count
    return (evaluate(problem.epilogue, arrays, problem.out.shape, [result.astype(problem.acc.numpy)]),)


def _tap(problem: Problem, x: np.ndarray, taps: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each output sees at one tap, whether that lies inside x, and whether it is counted."""
    inside, counted = np.ones((), bool), np.ones((), bool)
    index: list[np.ndarray] = [np.arange(x.shape[0])]
    for axis, (window, k) in enumerate(zip(problem.windows, taps, strict=True), start=1):
        at = np.arange(problem.out.shape[axis]) * window.stride + k * window.dilation - window.pad_begin
        within = (at >= 0) & (at < x.shape[axis])
        padded = (at >= -window.pad_begin) & (at < x.shape[axis] + window.pad_end)
        shape = [1] * x.ndim
        shape[axis] = -1
        inside = inside & within.reshape(shape)
        counted = counted & (padded if problem.count_padding else within).reshape(shape)
        index.append(np.clip(at, 0, max(0, x.shape[axis] - 1)))
    if x.size == 0:
        return np.zeros(problem.out.shape, x.dtype), np.zeros((), bool), counted
    return x[np.ix_(*index, np.arange(x.shape[-1]))], inside, counted
