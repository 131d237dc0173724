"""Calibrators: from the histogram of a tensor to the range that its integers cover.

``minmax`` covers everything, ``percentile`` all but one value in ten thousand at either end; ``mse`` and ``entropy`` weigh
what is cut off against finer steps: by squared error, or by the divergence of the distributions (Migacz, "8-bit inference
with TensorRT", 2017). All ranges hold 0.
"""

from collections.abc import Callable

import numpy as np

from redline.base.errors import BuildError, closest

LEVELS = 255
CUT = 1e-4
TRIALS = 64
Range = tuple[float, float]


def calibrate(name: str, counts: np.ndarray, edges: Range) -> Range:
    """The range for a histogram of ``counts`` between ``edges``; raises BuildError for an unknown calibrator."""
    if name not in CALIBRATORS:
        raise BuildError("--calibrator", f"there is no calibrator {name!r}", closest(name, CALIBRATORS))
    if not counts.sum():
        return edges
    low, high = CALIBRATORS[name](counts.astype(np.float64), edges)
    return min(low, 0.0), max(high, 0.0)


def _minmax(counts: np.ndarray, edges: Range) -> Range:
    return edges


def _percentile(counts: np.ndarray, edges: Range) -> Range:
    share = np.cumsum(counts) / counts.sum()
    step = (edges[1] - edges[0]) / len(counts)
    first, last = int(np.searchsorted(share, CUT)), int(np.searchsorted(share, 1 - CUT))
    low = edges[0] if edges[0] >= 0 else edges[0] + first * step
    return low, edges[0] + (last + 1) * step


def _candidates(edges: Range) -> list[Range]:
    """Smaller and smaller parts of the range; both ends shrink alike, for that is how outliers come."""
    return [(edges[0] * share, edges[1] * share) for share in np.linspace(1, 0.1, TRIALS)]


def _mse(counts: np.ndarray, edges: Range) -> Range:
    """Least squared error: a step's rounding inside, the distance to the end outside; each end shrinks by itself."""
    centres = _centres(counts, edges)
    shares = np.linspace(1, 0.05, TRIALS)
    low, high = edges
    for _ in range(2):
        high = min((high_share * edges[1] for high_share in shares), key=lambda end: _error(counts, centres, low, end))
        low = min((low_share * edges[0] for low_share in shares), key=lambda end: _error(counts, centres, end, high))
    return float(low), float(high)


def _error(counts: np.ndarray, centres: np.ndarray, low: float, high: float) -> float:
    step = max(high - low, 1e-30) / LEVELS
    outside = np.maximum(low - centres, 0) + np.maximum(centres - high, 0)
    return float((counts * np.where(outside > 0, outside**2, step**2 / 12)).sum())


def _entropy(counts: np.ndarray, edges: Range) -> Range:
    """The part of the range whose quantized distribution says most about the whole one."""
    return min(_candidates(edges), key=lambda ends: _divergence(counts, edges, ends))


def _divergence(counts: np.ndarray, edges: Range, ends: Range) -> float:
    """KL divergence of the distribution, cut off at ``ends``, from itself in LEVELS + 1 steps."""
    centres = _centres(counts, edges)
    inside = (centres >= ends[0]) & (centres <= ends[1])
    if inside.sum() < 2:
        return np.inf
    kept = counts[inside].copy()
    kept[0] += counts[centres < ends[0]].sum()
    kept[-1] += counts[centres > ends[1]].sum()
    step = np.minimum(np.arange(len(kept)) * (LEVELS + 1) // len(kept), LEVELS)
    total = np.bincount(step, counts[inside], LEVELS + 1)
    filled = np.bincount(step, counts[inside] > 0, LEVELS + 1)
    spread = np.where(counts[inside] > 0, (total / np.maximum(filled, 1))[step], 0)
    p, q = kept / kept.sum(), spread / max(spread.sum(), 1e-30)
    with np.errstate(all="ignore"):
        return float(np.where(p > 0, p * np.log(p / np.maximum(q, 1e-12)), 0).sum())


def _centres(counts: np.ndarray, edges: Range) -> np.ndarray:
    step = (edges[1] - edges[0]) / len(counts)
    return edges[0] + (np.arange(len(counts)) + 0.5) * step


CALIBRATORS: dict[str, Callable[[np.ndarray, Range], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
