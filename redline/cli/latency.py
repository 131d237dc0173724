"""How long one contestant's calls take when it has the machine to itself: a callable in, the spread of its times out."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from redline.cli.timing import Clock, percentile


@dataclass(frozen=True)
class Latency:
    """The times of the counted calls in seconds, and how many calls warmed up before them."""

    warmup_calls: int
    calls: int
    throughput: float  # calls a second
    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    max: float

    @staticmethod
    def of(times_s: Sequence[float], warmup_calls: int = 0) -> "Latency":
        ordered, total = sorted(times_s), math.fsum(times_s)
        p90, p95, p99 = (percentile(ordered, percent) for percent in (90, 95, 99))
        middle = statistics.median(ordered)
        rate = len(ordered) / total if total else math.inf
        return Latency(
            warmup_calls, len(ordered), rate, ordered[0], total / len(ordered), middle, p90, p95, p99, ordered[-1]
        )  # fmt: skip

    def times(self) -> dict[str, float]:
        """The times by name, in the order of a report."""
        return {name: value for name, value in asdict(self).items() if name not in ("warmup_calls", "calls", "throughput")}


def measure(call: Callable[[], object], seconds: float, warmup_s: float, clock: Clock | None = None) -> Latency:
    """Calls back to back: uncounted for ``warmup_s`` and at least once, then counted for ``seconds`` and at least once."""
    clock = clock or Clock()
    warmup = _calls(call, warmup_s, clock)
    return Latency.of(_calls(call, seconds, clock), len(warmup))


def _calls(call: Callable[[], object], seconds: float, clock: Clock) -> list[float]:
    times: list[float] = []
    started = before = clock.now()
    while not times or before - started < seconds:
        call()
        after = clock.now()
        times.append(after - before)
        before = after
    return times
