"""The harness: times are those of the kernel asked for, whatever its operands look like."""

import itertools
import math
import os
from dataclasses import dataclass

import numpy as np
import pytest

from redline import passes
from redline.base import dtypes
from redline.codegen.c import isa, toolchain
from redline.codegen.c.compile import compile_objects, source
from redline.kernels import FAMILIES
from redline.kernels.problem import CpuTarget, KernelCode, Operand, Packing
from redline.lower import lower
from redline.tune.delay import waited_seconds
from redline.tune.harness import MAX_TURNS, MIN_TURNS, Candidate, Harness, _Runner
from redline.tune.stock import REPEATS, Stock
from tests.builder.random_graphs import grown


@dataclass(frozen=True)
class Plain:
    """A problem of given operands."""

    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    flops: int = 0


X = Operand.contiguous(dtypes.float32, (64,))
BODY = """#define _GNU_SOURCE
#include <stdint.h>
#include <time.h>
static void compute_for(int64_t ns) {{
  struct timespec from, now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
  do clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < ns);
}}
void KERNEL(void *const *args, void *scratch, int64_t chunk) {{ {body} }}
"""


def candidate(body: str, problem: Plain, chunks: int = 1, **options: object) -> Candidate:
    code = KernelCode("plain", BODY.format(body=body), chunks, **options)  # type: ignore[arg-type]
    return Candidate("problem", body, problem, code)


def harness(candidates: list[Candidate], target: CpuTarget) -> Harness:
    tools = toolchain.find()
    return Harness(candidates, compile_objects([source(c.code) for c in candidates], target, tools), target, tools)


@pytest.mark.parametrize("threads", [1, 2])
def test_each_candidate_has_its_own_time(threads: int) -> None:
    """A kernel that computes for two milliseconds takes at least that long; the ones beside it are not blamed."""
    busy = "compute_for(2000000);"
    copy = "float *y = args[1]; const float *x = args[0]; for (int i = 0; i < 64; i++) y[i] = x[i] + %d;"
    bodies = [copy % 1, busy, copy % 2]
    with harness([candidate(body, Plain((X,), (X,))) for body in bodies], isa.target("cpu", threads)) as timer:
        first, long, last = (timer.seconds(i) for i in range(3))
    assert long >= 2e-3 / threads  # where a thread had to wait, the processor time of both is shared out
    assert first > 0 and last > 0


def test_every_chunk_is_run() -> None:
    """Four chunks of a millisecond on two threads take two milliseconds at least."""
    busy = "compute_for(1000000);"
    with harness([candidate(busy, Plain((X,), (X,)), 4)], isa.target("cpu", 2)) as timer:
        assert timer.seconds(0) >= 2e-3


def test_operands_are_where_their_strides_reach() -> None:
    """Backwards, broadcast, transposed and packed: a kernel that touches every element stays inside its arrays."""
    backwards = Operand(dtypes.float32, (8, 16), (-16, -1))
    broadcast = Operand(dtypes.float32, (8, 16), (0, 1))
    packed = Operand.contiguous(dtypes.float32, (3, 5), constant=True)
    empty = Operand.contiguous(dtypes.float32, (0, 4))
    body = """
        const float *a = args[0], *b = args[1], *w = args[2]; float *y = args[4];
        if (w[15] != 42 || (uintptr_t)w % 64) __builtin_trap();
        for (int i = 0; i < 8; i++) for (int j = 0; j < 16; j++) y[j * 8 + i] = a[-16 * i - j] + b[j];"""
    out = Operand(dtypes.float32, (8, 16), (1, 8))
    packing = Packing("tail", lambda array: np.append(array.reshape(-1), np.float32(42)))
    problem = Plain((backwards, broadcast, packed, empty), (out,))
    with harness([candidate(body, problem, packings={2: packing})], isa.target("cpu", 1)) as timer:
        assert timer.seconds(0) > 0


def test_constants_come_in_copies() -> None:
    """A constant is at another address in every repeat, so that it comes from memory as it does in an engine."""
    weights = Operand.contiguous(dtypes.float32, (256,), constant=True)
    timed = candidate("((float *)args[1])[0] = ((const float *)args[0])[1];", Plain((weights,), (X,)))
    stock = Stock(timed.problem)
    assert len({array.ctypes.data for array in stock.arrays(timed.code)}) == REPEATS + 2
    assert stock.constant_bytes(timed.code) == 1024


def test_candidates_share_what_they_read_alike() -> None:
    """Two of one packing have the same arrays, another packing has its own; a constant beyond the caches has few copies."""
    weights = Operand.contiguous(dtypes.float32, (12 << 20,), constant=True)
    problem = Plain((weights,), (X,))
    half = Packing("half", lambda array: array[::2])
    stock = Stock(problem)
    plain, packed, again = (candidate("", problem, packings=p).code for p in ({}, {0: half}, {0: half}))
    assert stock.arrays(packed)[0] is stock.arrays(again)[0]
    assert stock.arrays(packed)[0].nbytes * 2 == stock.arrays(plain)[0].nbytes
    assert len({id(array) for array in stock.arrays(plain)[:-1]}) == 2


class Watched(Harness):
    """Remembers whose turn it was."""

    def __init__(self, candidates: list[Candidate]) -> None:
        tools, target = toolchain.find(), isa.target("cpu", 1)
        super().__init__(candidates, compile_objects([source(c.code) for c in candidates], target, tools), target, tools)
        self.turns: list[_Runner] = []

    def _take_turn(self, runner: _Runner) -> None:
        self.turns.append(runner)
        super()._take_turn(runner)


def test_the_slow_candidate_is_not_timed_for_long() -> None:
    """It takes its share of turns, and then the others go on without it."""
    problem = Plain((X,), (X,))
    sleep, copy = "struct timespec t = {0, 1000000}; nanosleep(&t, 0);", "((float *)args[1])[0] = 1;"
    with Watched([candidate(sleep, problem), candidate(copy, problem)]) as timer:
        assert timer.seconds(0) > timer.seconds(1)
        counts = [sum(runner.index == index for runner in timer.turns) for index in range(2)]
    assert MIN_TURNS <= counts[0] <= counts[1] <= MAX_TURNS


@pytest.mark.parametrize("held_up", [[0, 0, 0, 3600], [0, 3600]])
def test_turns_in_which_a_thread_waited_do_not_count(monkeypatch: pytest.MonkeyPatch, held_up: list[int]) -> None:
    """Every second turn, or each, is said to have been held up by an hour; a time there is nevertheless."""
    clock = itertools.accumulate(itertools.cycle(held_up))
    monkeypatch.setattr("redline.tune.harness.waited_seconds", lambda: next(clock))
    with Watched([candidate("((float *)args[1])[0] = 1;", Plain((X,), (X,)))]) as timer:
        assert 0 < timer.seconds(0) < 1
        runner = timer.turns[0]
    assert len(runner.other) >= MIN_TURNS
    assert len(runner.clean) == (len(runner.other) if len(held_up) == 4 else 0)


def test_candidates_of_other_problems_take_turns() -> None:
    other = Plain((Operand.contiguous(dtypes.float32, (128,)),), (X,))
    candidates = [candidate("compute_for(3000000);", Plain((X,), (X,))), candidate("compute_for(500000);", other)]
    with harness(candidates, isa.target("generic", num_threads=1)) as timed:
        long, short = timed.in_turns()
    assert long >= 3e-3 and short >= 5e-4  # at least what they compute


def test_waiting_is_counted_by_the_system() -> None:
    before = waited_seconds()
    assert 0 <= before <= waited_seconds() < 3600 * os.cpu_count()


def test_the_kernels_of_random_graphs_have_times() -> None:
    """First and last candidates of real problems, indices among their operands: finite times, no crash."""
    target = isa.target("cpu", 2)
    candidates = []
    for seed in range(500, 504):
        for step in lower(passes.optimize(grown(seed, 16))).steps:
            family = FAMILIES[step.family]
            options = family.schedules(step.problem, target)
            for schedule in dict.fromkeys((options[0], options[-1])):
                code = family.render(step.problem, schedule, target)
                candidates.append(Candidate("", repr(schedule), step.problem, code))
    with harness(candidates, target) as timer:
        times = [timer.seconds(i) for i in range(len(candidates))]
    assert all(t > 0 and math.isfinite(t) for t in times)
