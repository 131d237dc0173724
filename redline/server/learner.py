"""What batching is worth, learned from measured times. Pure: no clock, no threads.

``sizes`` are the batches that the model can run; a batch of n runs on the smallest size that holds it. With t(s) the measured
time of size s, taking n of the waiting requests answers n / t(s) requests a second; the size with the best rate is taken.
Waiting for one more request pays while the expected wait is shorter than the time that running it in the same batch saves.

A machine that is busy or shared slows all sizes, and a size that has not run since would look fast beside those that have. So
t(s) is the size's own time, as measured beside the others, times the slowness of the last batches of any size. The own times
are corrected by batches that ran beside batches of another size, and by those that no machine explains: much faster ones.
"""

import bisect
import math
from collections import deque
from collections.abc import Mapping, Sequence

WEIGHT = 0.1  # of the newest value in a running mean
MIN_GAIN = 1.05  # a larger batch must answer so much more a second, or the smaller one's latency is kept
RECENT = 16  # batches by which the slowness is judged
BESIDE = 5  # of them of other sizes, to judge a size by
STEP = 1.01  # by which one batch corrects its size's own time: half of them above, half below, whatever pauses there are
FASTER = 0.8  # of the own time, which was the best of several on an idle machine


class Learner:
    """Times of the sizes of one model, and the mean interval between arrivals."""

    def __init__(self, sizes: Sequence[int], times_s: Mapping[int, float] | None = None) -> None:
        self.sizes = tuple(sorted(sizes))
        self._times: dict[int, float] = dict(times_s or {})  # of each size beside the others
        self._first = {size: seconds for size, seconds in self._times.items() if seconds > 0}
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)  # sizes, and times over the size's own
        self._slowness = 1.0
        self._interval_s = 0.0
        self._last_arrival: float | None = None
        self._best: dict[int, int] = {}

    def holds(self, n: int) -> int:
        """The smallest size that holds ``n``; the largest where none does."""
        at = bisect.bisect_left(self.sizes, n)
        return self.sizes[min(at, len(self.sizes) - 1)]

    def executed(self, n: int, seconds: float) -> None:
        """A batch of ``n`` took ``seconds``; one that did not fit the largest size says nothing."""
        if n > self.sizes[-1] or seconds <= 0:
            return
        size = self.holds(n)
        self._best.clear()
        own = self._times.get(size, 0.0)
        if own <= 0:
            self._times[size] = self._first[size] = seconds / self._slowness
            return
        beside = [slowness for other, slowness in self._recent if other != size]
        if len(beside) >= BESIDE:
            own = self._correct(size, seconds / _median(beside))
        elif seconds < FASTER * own:
            own = self._times[size] = self._first[size] = own + WEIGHT * (seconds - own)
        self._recent.append((size, seconds / own))
        self._slowness = _median([slowness for _, slowness in self._recent])

    def _correct(self, size: int, seconds: float) -> float:
        """Moves a size's own time towards ``seconds``. What counts is its ratio to the others: their common level is kept."""
        own = self._times[size]
        self._times[size] = own * STEP if seconds > own * STEP else own / STEP if seconds < own / STEP else own
        level = math.prod(self._times[s] / first for s, first in self._first.items()) ** (1 / len(self._first))
        for each in self._times:
            self._times[each] /= level
        return self._times[size]

    def arrived(self, now: float) -> None:
        if self._last_arrival is not None:
            self._interval_s += WEIGHT * (now - self._last_arrival - self._interval_s)
        self._last_arrival = now

    def time_s(self, n: int) -> float:
        """The time of a batch of ``n`` now; where it was never measured, that of the nearest size below, in proportion."""
        size = self.holds(n)
        if size in self._times:
            return self._times[size] * self._slowness
        below = [s for s in self._times if s < size]
        return self._times[max(below)] * self._slowness * size / max(below) if below else 0.0

    def best(self, waiting: int) -> int:
        """How many of ``waiting`` to take at once, at least 1."""
        if waiting <= 1 or not self._times:
            return waiting
        if waiting not in self._best:
            self._best[waiting] = self._search(waiting)
        return self._best[waiting]

    def _search(self, waiting: int) -> int:
        if self.holds(waiting) not in self._times:
            return waiting  # never tried: try it
        chosen, best_rate = 0, 0.0
        for n in sorted({*(s for s in self.sizes if s < waiting), min(waiting, self.sizes[-1])}):
            seconds = self.time_s(n)
            rate = n / seconds if seconds > 0 else float("inf")
            if not chosen or rate > best_rate * MIN_GAIN:
                chosen, best_rate = n, rate
        return chosen

    def worth_waiting_s(self, n: int) -> float:
        """How long a batch of ``n`` should wait for one more: 0 when the next is expected later than it would save."""
        saving = self.time_s(n) + self.time_s(1) - self.time_s(n + 1)
        return saving if 0 < self._interval_s < saving else 0.0


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
