"""Whether two answers are the same: arrays in, one verdict an output out. Pure; knows no files and no engines.

Not-a-number must stand in the same places and infinities must be equal; everything else is held to tolerance.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from redline.base import dtypes
from redline.base.shapes import text
from redline.cli.tolerance import TABLE, Tolerance


@dataclass(frozen=True)
class Verdict:
    """One output compared. ``difference`` says in words what is wrong; empty when nothing is."""

    output: str
    relative_l2: float = 0.0
    max_abs: float = 0.0
    worst_index: tuple[int, ...] = ()
    expected: float = 0.0  # the two values at worst_index
    actual: float = 0.0
    difference: str = ""

    @property
    def passed(self) -> bool:
        return not self.difference


def compare(expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray]) -> list[Verdict]:
    """A verdict for every output that either side has, in the order of ``expected``."""
    names = dict.fromkeys([*expected, *actual])
    return [_compare_output(name, expected.get(name), actual.get(name)) for name in names]


def worse(a: Verdict, b: Verdict) -> Verdict:
    """The verdict to report of two samples of the same output: a failure before a success, else the larger error."""
    return max(a, b, key=lambda v: (not v.passed, v.relative_l2, v.max_abs))


def _compare_output(name: str, expected: np.ndarray | None, actual: np.ndarray | None) -> Verdict:
    if expected is None or actual is None:
        return Verdict(name, difference="only the engine has it" if expected is None else "the engine lacks it")
    return compare_arrays(name, np.asarray(expected), np.asarray(actual))


def compare_arrays(name: str, expected: np.ndarray, actual: np.ndarray) -> Verdict:
    """Compares one output with the tolerance of the expected data type."""
    if expected.dtype != actual.dtype:
        return Verdict(name, difference=f"dtype {actual.dtype}, expected {expected.dtype}")
    if expected.shape != actual.shape:
        return Verdict(name, difference=f"shape {text(actual.shape)}, expected {text(expected.shape)}")
    if expected.size == 0:
        return Verdict(name)
    error = _errors(expected, actual)
    finite = np.where(np.isfinite(expected.astype(np.float64)), expected.astype(np.float64), 0.0)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    # An output of nothing but zeros has no scale: it is held to the absolute error.
    relative_l2 = float(np.linalg.norm(error) / (np.linalg.norm(finite) or 1.0))
    scale = float(np.max(np.abs(finite))) or 1.0
    difference = _judge(TABLE[dtypes.from_numpy(expected.dtype)], relative_l2, float(error[worst]), scale)
    index = tuple(int(i) for i in worst)
    return Verdict(name, relative_l2, float(error[worst]), index, float(expected[worst]), float(actual[worst]), difference)


def _errors(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """The absolute error of every element: infinite where only one side is NaN or infinite, 0 where both agree in that."""
    is_integer = expected.dtype.kind in "iub"
    same = expected == actual
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(actual - expected)
    if is_integer:  # float64 cannot tell neighbouring large integers apart
        return np.where(same, 0.0, np.maximum(error, 1.0))
    same |= np.isnan(expected) & np.isnan(actual)
    return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))


def _judge(tolerance: Tolerance, relative_l2: float, max_abs: float, scale: float) -> str:
    if not math.isfinite(max_abs):
        return "NaN or infinity on one side only"
    if relative_l2 > tolerance.relative_l2:
        return f"relative L2 error {relative_l2:.2e}, allowed {tolerance.relative_l2:.0e}"
    allowed = max(tolerance.relative_max * scale, tolerance.max_steps)
    return f"an error of {max_abs:.3g} in one element, allowed {allowed:.3g}" if max_abs > allowed else ""
