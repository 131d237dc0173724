"""The protocol by which contestants are timed against each other: callables in, statistics of their calls out.

They take turns in blocks of seconds with a pause between the blocks. Taking turns call by call would be unfair: the worker
threads of some runtimes keep spinning after a call and take the cores of whoever comes next. Each round starts with
another contestant. The first call of a block finds the caches full of the others' data and is not counted.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Call = Callable[[], object]
WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Clock:
    """How the protocol reads and spends time, in seconds; a test brings its own."""

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Stats:
    """The times of the counted calls of one contestant, in seconds."""

    calls: int
    min_s: float
    median_s: float
    p90_s: float
    p99_s: float
    mean_s: float

    @staticmethod
    def of(times_s: Sequence[float]) -> "Stats":
        ordered = sorted(times_s)
        median, mean = statistics.median(ordered), statistics.fmean(ordered)
        return Stats(len(ordered), ordered[0], median, percentile(ordered, 90), percentile(ordered, 99), mean)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the ascending values that at least ``percent`` percent of them do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def alternate(
    contestants: Mapping[str, Call],
    seconds_per_block: float = 1.0,
    pause_s: float = 0.3,
    blocks: int = 5,
    clock: Clock | None = None,
) -> dict[str, Stats]:
    """Times every contestant in ``blocks`` blocks, in turns. The result keeps the order in which they were given."""
    clock = clock or Clock()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        _block(call, 0.0, clock, at_least=WARM_UP_CALLS)
        clock.sleep(pause_s)
    for index in range(blocks):
        for name in rotated(list(contestants), index):
            times[name] += _block(contestants[name], seconds_per_block, clock, at_least=2)[1:]
            clock.sleep(pause_s)
    return {name: Stats.of(found) for name, found in times.items()}


def rotated(names: list[str], by: int) -> list[str]:
    by = by % len(names) if names else 0
    return names[by:] + names[:by]


def _block(call: Call, seconds: float, clock: Clock, at_least: int) -> list[float]:
    """Calls back to back until ``seconds`` have passed; the time of each."""
    times: list[float] = []
    started = previous = clock.now()
    while len(times) < at_least or previous - started < seconds:
        call()
        now = clock.now()
        times.append(now - previous)
        previous = now
    return times
