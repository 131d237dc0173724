"""What a model version has done so far: the counters of the statistics extension and the histograms of /metrics."""

import bisect
import time
from collections.abc import Sequence

BUCKETS_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Duration:
    """How often, and how long in all."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds

    @property
    def ns(self) -> int:
        return round(self.seconds * 1e9)


class Histogram:
    """Counts by bucket (the last one is open), and the sum."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts, self.sum_s = [0] * (len(BUCKETS_S) + 1), 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class BatchStats:
    """The executions of one batch size."""

    __slots__ = ("compute_infer", "compute_input", "compute_output")

    def __init__(self) -> None:
        self.compute_input, self.compute_infer, self.compute_output = Duration(), Duration(), Duration()


KINDS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


class Stats:
    """Changed on the event loop only."""

    def __init__(self) -> None:
        self.inferences = self.executions = self.last_ms = 0
        self.durations = {kind: Duration() for kind in KINDS}
        self.failures: dict[str, int] = {}
        self.batches: dict[int, BatchStats] = {}
        self.queue, self.compute, self.request = Histogram(), Histogram(), Histogram()

    def executed(self, rows: int, requests: int, input_s: float, infer_s: float, output_s: float) -> None:
        """One execution of ``requests`` requests with ``rows`` rows in all."""
        self.executions += 1
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchStats()
        for kind, seconds in (("compute_input", input_s), ("compute_infer", infer_s), ("compute_output", output_s)):
            self.durations[kind].add(seconds * requests, requests)
            getattr(batch, kind).add(seconds)
        self.compute.add(infer_s)

    def answered(self, rows: int, request_s: float, queue_s: float) -> None:
        """One request was answered."""
        self.inferences += rows
        success, queue = self.durations["success"], self.durations["queue"]
        success.count += 1
        success.seconds += request_s
        queue.count += 1
        queue.seconds += queue_s
        self.queue.add(queue_s)
        self.request.add(request_s)

    def touched(self) -> None:
        self.last_ms = round(time.time() * 1e3)

    def failed(self, reason: str, request_s: float) -> None:
        self.durations["fail"].add(request_s)
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def batch_table(self) -> Sequence[tuple[int, BatchStats]]:
        return sorted(self.batches.items())
