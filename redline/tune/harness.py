"""The timing protocol: how long one kernel takes in the company it will have in an engine.

A candidate runs as consecutive steps of the engine's own executor, on as many threads as the engine will use. Activations
are warm, as the step before leaves them. Constants are read from a different copy each time, after everything else has
been pushed out of the caches, when they are large: in a model of many megabytes they come from memory at every inference.
The time of a candidate is the lower quartile of its repeats: whatever else the machine does only adds to some of them.
"""

import ctypes
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np

from redline.base.extents import MAX_DIMS, at_nominal, nominal_dims
from redline.base.shapes import size
from redline.codegen.c.link import link_engine
from redline.codegen.c.plan import Plan, Ref, Space, Step
from redline.codegen.c.toolchain import Toolchain
from redline.kernels.problem import CpuTarget, KernelCode, Operand, Problem
from redline.runtime.library import Call, Library, pointers

REPEATS = 5  # steps of a candidate in one run; the first warms the activations up
ENOUGH_SECONDS = 0.02
MAX_RUNS = 12
LARGE_BYTES = 128 << 10
FLUSH_BYTES = 48 << 20


@dataclass(frozen=True)
class Candidate:
    """One way to solve one problem."""

    problem_key: str
    schedule: str
    problem: Problem
    code: KernelCode


class Harness:
    """A loaded library of candidates. ``seconds(i)`` times the i-th."""

    def __init__(
        self, candidates: Sequence[Candidate], objects: Sequence[bytes], target: CpuTarget, toolchain: Toolchain
    ) -> None:
        self.candidates, self.threads = candidates, target.num_threads
        steps = [
            Step(c.code.symbol, c.code.num_chunks, _refs(c.problem, repeat), barrier=True)
            for c in candidates
            for repeat in range(REPEATS + 1)
        ]
        scratch = max((c.code.scratch_bytes for c in candidates), default=0)
        plan = Plan(tuple(steps), 64, scratch, num_dims=MAX_DIMS)
        self.library = Library.from_bytes(link_engine(objects, plan, target, toolchain), "tuner")
        self.pool = self.library.pool_new(self.threads)
        self.arena = _aligned(self.library.workspace_bytes(self.threads))
        self.times = (ctypes.c_double * len(steps))()
        self.random = np.random.default_rng(0)
        self.flush = np.zeros(FLUSH_BYTES, np.uint8)

    def __enter__(self) -> "Harness":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.library.pool_free(self.pool)
        self.library.close()

    def seconds(self, index: int) -> float:
        """The time of candidate ``index``: the lower quartile."""
        candidate = self.candidates[index]
        operands, is_cold = self._operands(candidate)
        call = self._call(index, operands)
        samples: list[float] = []
        for _ in range(MAX_RUNS):
            if is_cold:
                self.flush += 1
            self.library.run(self.pool, ctypes.byref(call))
            first = index * (REPEATS + 1)
            samples += self.times[first + 1 : first + 1 + REPEATS]
            if sum(samples) > ENOUGH_SECONDS:
                break
        return statistics.quantiles(samples, n=4)[0]

    def _operands(self, candidate: Candidate) -> tuple[list[np.ndarray], bool]:
        """The arrays behind the refs: the operands in order, constants once a repeat; and whether constants are large."""
        arrays: list[np.ndarray] = []
        constant_bytes = 0
        for i, operand in enumerate(_operands(candidate.problem)):
            copies = REPEATS + 1 if operand.constant else 1
            array = self._fill(operand)
            if i in candidate.code.packings:
                array = candidate.code.packings[i].apply(array.reshape(-1)[: size(operand.shape)].reshape(operand.shape))
            constant_bytes += array.nbytes if operand.constant else 0
            arrays += [_copy(array) for _ in range(copies)]
        return arrays, constant_bytes >= LARGE_BYTES

    def _fill(self, operand: Operand) -> np.ndarray:
        """As many elements as the strides reach over, of harmless values."""
        reach = 1 + sum(abs(s) * (e - 1) for e, s in zip(operand.shape, operand.strides, strict=True) if e)
        count = max(reach, size(operand.shape), 1)
        if operand.dtype.is_float:
            return self.random.standard_normal(count, np.float32).astype(operand.dtype.numpy)
        return self.random.integers(0, 2, count).astype(operand.dtype.numpy)

    def _call(self, index: int, arrays: Sequence[np.ndarray]) -> Call:
        call = Call()
        addresses = pointers([array.ctypes.data for array in arrays])
        call.arena, call.inputs, call.outputs = self.arena.ctypes.data, addresses, addresses
        call.step_seconds = self.times
        call.num_threads = call.capacity = self.threads
        call.first_step, call.end_step = index * (REPEATS + 1), (index + 1) * (REPEATS + 1)
        operands = self.candidates[index].problem.reads + self.candidates[index].problem.writes
        dims = nominal_dims(tuple((operand.shape, operand.strides) for operand in operands))
        call.dims = (ctypes.c_int64 * MAX_DIMS)(*dims)
        call.keep = (addresses, arrays)  # ctypes structures take attributes: the memory lives as long as the call
        return call


def _operands(problem: Problem) -> list[Operand]:
    """What the problem reads and writes, at the tuned shape."""
    operands = problem.reads + problem.writes
    return [replace(o, shape=at_nominal(o.shape), strides=at_nominal(o.strides)) for o in operands]


def _refs(problem: Problem, repeat: int) -> tuple[Ref, ...]:
    """Operands as inputs of the harness, in the order of Harness._operands."""
    refs, position = [], 0
    for operand in _operands(problem):
        start = sum(min(s, 0) * (e - 1) for e, s in zip(operand.shape, operand.strides, strict=True)) * operand.dtype.size
        refs.append(Ref(Space.INPUT, -start, position + (repeat if operand.constant else 0)))
        position += REPEATS + 1 if operand.constant else 1
    return tuple(refs)


def _aligned(num_bytes: int) -> np.ndarray:
    """Zeroed memory that begins at a multiple of 64."""
    raw = np.zeros(num_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + num_bytes]


def _copy(array: np.ndarray) -> np.ndarray:
    copy = _aligned(array.nbytes).view(array.dtype)
    copy[...] = array.reshape(-1)
    return copy
