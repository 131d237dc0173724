"""What is learnt of a tensor from calibration: its range, its histogram, and its channels' means and ranges.

Two rounds over the data: ``look`` finds ranges, ``count`` fills histograms within them. Channels are the last axis.
"""

from dataclasses import dataclass, field

import numpy as np

BINS = 2048
MOST_COUNTED = 1 << 16  # elements of one array that join a histogram


@dataclass
class Statistics:
    """The state of one tensor; [channels] arrays in float64."""

    low: np.ndarray = field(default_factory=lambda: np.zeros(0))
    high: np.ndarray = field(default_factory=lambda: np.zeros(0))
    total: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rows: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    edges: tuple[float, float] = (0.0, 0.0)
    divisor: np.ndarray | None = None  # by which channels are divided before they are counted

    def look(self, array: np.ndarray) -> None:
        rows = _rows(array)
        if not len(rows):
            return
        low, high = rows.min(0).astype(np.float64), rows.max(0).astype(np.float64)
        self.low = np.minimum(self.low, low) if self.rows else low
        self.high = np.maximum(self.high, high) if self.rows else high
        total = rows.sum(0, dtype=np.float64)
        self.total = self.total + total if self.rows else total
        self.rows += len(rows)

    def divide(self, divisor: np.ndarray | None) -> None:
        """Settles what is counted: the channels divided by ``divisor``, within their range."""
        self.divisor = divisor
        by = 1.0 if divisor is None else divisor
        low, high = float((self.low / by).min(initial=0)), float((self.high / by).max(initial=0))
        self.edges = (low, high) if high > low else (low, low + 1.0)

    def count(self, array: np.ndarray) -> None:
        rows = _rows(array)
        step = max(1, rows.size // MOST_COUNTED)
        some = rows[:: max(1, min(step, len(rows)))]
        some = some if self.divisor is None else some / self.divisor
        self.counts += np.histogram(some, BINS, self.edges)[0]

    @property
    def mean(self) -> np.ndarray:
        return self.total / max(self.rows, 1)

    @property
    def peak(self) -> np.ndarray:
        """The largest size of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)


@dataclass(frozen=True)
class Tensor:
    """What quantization keeps of a tensor: the range of its integers, its channels' means and what divides them first.

    ``wide``: the matrix products that read it stay in 16-bit floats (streams.py). ``peak``: the largest size that was seen, 0
    where that was not kept: floats of 8 bits lose little by holding it, for their steps grow with the size.
    """

    low: float
    high: float
    mean: np.ndarray | None = None
    divisor: np.ndarray | None = None
    wide: bool = False
    peak: float = 0.0

    @property
    def largest(self) -> float:
        """The size that the grid of floats must hold."""
        return self.peak or max(-self.low, self.high, 0.0)
