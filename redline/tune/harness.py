"""The timing protocol: how long one kernel takes in the company it will have in an engine.

A candidate runs as consecutive steps of the engine's own executor, on as many threads as the engine will use. Activations
are warm, as the step before leaves them. Constants are read from a different copy each time, after everything else has
been pushed out of the caches, when they are large: in a model of many megabytes they come from memory at every inference.

The candidates of a problem take turns, so that what else the machine does falls on all of them. The time of a candidate is
the least of the turns in which no thread had to wait for a core. In the others the clock means nothing, least of all for
single steps: when the system stops one thread the rest work on, and the next steps then seem to take no time. Where all were
held up, the time that the threads computed stands for it. A candidate that is far behind after a few turns takes no more.
"""

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np

from redline.base.extents import MAX_DIMS, nominal_dims
from redline.codegen.c.link import link_engine
from redline.codegen.c.plan import Plan, Ref, Space, Step
from redline.codegen.c.toolchain import Toolchain
from redline.kernels.problem import CpuTarget, KernelCode, Problem
from redline.runtime.library import Call, Library, pointers
from redline.tune.delay import waited_seconds
from redline.tune.stock import REPEATS, Stock, aligned, at_tuned_shape

ENOUGH_SECONDS = 0.02  # of all turns of one candidate that count
TURN_SECONDS = 2e-3  # of a turn after the first: short enough to find the cores free even on a busy machine
MIN_TURNS, MAX_TURNS = 4, 16
COLD_TURNS = 24  # of one step each
TOO_SLOW = 1.25  # times the fastest: takes no turns beyond the least number
MAX_WAIT = 0.02  # of a turn, in which threads may wait for a core
PAUSE_SECONDS = 2e-3  # after a turn that did not count: who has slept is not stopped soon
LARGE_BYTES = 128 << 10
FLUSH_BYTES = 48 << 20


@dataclass(frozen=True)
class Candidate:
    """One way to solve one problem."""

    problem_key: str
    schedule: str
    problem: Problem
    code: KernelCode


@dataclass
class _Runner:
    """A candidate with its call, and the mean seconds of its repeats in each turn: ``clean`` ones by the clock, others not."""

    index: int
    call: Call
    is_cold: bool
    warming: int = 1  # steps in front of those that count
    clean: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    counted: float = 0.0

    @property
    def seconds(self) -> float:
        return min(self.clean or self.other)

    @property
    def repeats(self) -> int:
        """Of the next turn."""
        if not self.warming:
            return 1
        if not self.clean and not self.other:
            return REPEATS
        return max(1, min(REPEATS, round(TURN_SECONDS / max(self.seconds, 1e-9))))

    def wants_more(self, best: float) -> bool:
        if len(self.clean) < MIN_TURNS:
            return True
        return self.counted < ENOUGH_SECONDS and self.seconds < TOO_SLOW * best


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
        self.library = Library.from_bytes(link_engine(objects, [plan], target, toolchain), "tuner")
        self.pool = self.library.pool_new(self.threads)
        self.arena = aligned(self.library.workspace_bytes(0, self.threads))
        self.state = aligned(self.library.state_bytes(0, self.threads))
        self.times = (ctypes.c_double * len(steps))()
        self.flush = np.zeros(FLUSH_BYTES, np.uint8)
        self.flush += 1  # pages of their own, not one page of zeros
        self.found: dict[int, float] = {}

    def __enter__(self) -> "Harness":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.library.pool_free(self.pool)
        self.library.close()

    def seconds(self, index: int) -> float:
        """The time of candidate ``index``; the first that is asked for has all those of its problem timed."""
        if index not in self.found:
            mine = self.candidates[index]
            rivals = [
                i for i, c in enumerate(self.candidates) if c.problem_key == mine.problem_key and c.problem == mine.problem
            ]
            self.found.update(self._race(rivals))
        return self.found[index]

    def in_turns(self) -> list[float]:
        """The times of all candidates, whatever their problems, which take turns: for times that are to be compared.

        Nothing is in the caches of the threads when one begins, as between large steps of an engine.
        """
        runners = [replace(self._runner(i, Stock(c.problem)), is_cold=True, warming=0) for i, c in enumerate(self.candidates)]
        for _ in range(COLD_TURNS):
            for runner in runners:
                self._take_turn(runner)
        return [runner.seconds for runner in runners]

    def _race(self, indices: Sequence[int]) -> dict[int, float]:
        """The times of candidates of one problem, which take turns."""
        stock = Stock(self.candidates[indices[0]].problem)
        runners = [self._runner(index, stock) for index in indices]
        for _ in range(MAX_TURNS):
            best = min((runner.seconds for runner in runners if runner.clean), default=0.0)
            for runner in runners:
                if runner.wants_more(best):
                    self._take_turn(runner)
        return {runner.index: runner.seconds for runner in runners}

    def _take_turn(self, runner: _Runner) -> None:
        repeats, first = runner.repeats, runner.call.first_step
        begin, end = first + runner.warming, first + runner.warming + repeats
        runner.call.end_step = end
        if runner.is_cold:  # read, not written: what is dirty would have to go to memory while the kernel is timed
            self.library.checksum(self.flush.ctypes.data, FLUSH_BYTES)
        before, start = waited_seconds(), time.process_time()
        self.library.run(self.pool, ctypes.byref(runner.call))
        computed, waited = time.process_time() - start, waited_seconds() - before
        counted = sum(self.times[begin:end])
        if waited <= MAX_WAIT * sum(self.times[first:end]):
            runner.clean.append(counted / repeats)
            runner.counted += counted
        else:
            runner.other.append(computed / (end - first) / self.threads)
            time.sleep(PAUSE_SECONDS)

    def _runner(self, index: int, stock: Stock) -> _Runner:
        candidate = self.candidates[index]
        arrays = stock.arrays(candidate.code)
        is_cold = stock.constant_bytes(candidate.code) >= LARGE_BYTES
        call = Call()
        addresses = pointers([array.ctypes.data for array in arrays])
        call.arena, call.state = self.arena.ctypes.data, self.state.ctypes.data
        call.inputs, call.outputs = addresses, addresses
        call.step_seconds = self.times
        call.num_threads = call.capacity = self.threads
        call.first_step, call.end_step = index * (REPEATS + 1), (index + 1) * (REPEATS + 1)
        operands = candidate.problem.reads + candidate.problem.writes
        dims = nominal_dims(tuple((operand.shape, operand.strides) for operand in operands))
        call.dims = (ctypes.c_int64 * MAX_DIMS)(*dims)
        call.keep = (addresses, arrays)  # ctypes structures take attributes: the memory lives as long as the call
        return _Runner(index, call, is_cold)


def _refs(problem: Problem, repeat: int) -> tuple[Ref, ...]:
    """Operands as inputs of the harness, in the order of Stock.arrays."""
    refs, position = [], 0
    for operand in at_tuned_shape(problem):
        start = sum(min(s, 0) * (e - 1) for e, s in zip(operand.shape, operand.strides, strict=True)) * operand.dtype.size
        refs.append(Ref(Space.INPUT, -start, position + (repeat if operand.constant else 0)))
        position += REPEATS + 1 if operand.constant else 1
    return tuple(refs)
