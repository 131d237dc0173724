"""Reading constants, for the rules of all passes."""

from typing import Any

import ml_dtypes
import numpy as np

from redline.base import dtypes
from redline.ir import Value


def is_constant(value: Value | None) -> bool:
    return value is not None and value.array is not None


def splat(value: Value | None) -> float | int | None:
    """The one number that all elements of a constant are; None for several, for none, and for what is no constant."""
    array = None if value is None else value.array
    if array is None or array.size == 0:
        return None
    first = array.reshape(-1)[0]
    same = array.size == 1 or bool(np.all(array == first))
    return first.item() if same else None


def number(value: Value | None) -> float | None:
    """``splat`` as a float; None unless it is finite."""
    found = splat(value)
    return float(found) if found is not None and np.isfinite(found) else None


def near(found: float | None, wanted: float, value: Value) -> bool:
    """Whether a constant is meant to be ``wanted``: the same to five digits, or to the precision of ``value``'s type."""
    eps = float(ml_dtypes.finfo(value.dtype.numpy).eps) if value.dtype.is_float else 0.0
    return found is not None and abs(found - wanted) <= max(1e-5, eps) * abs(wanted)


def like(array: Any, value: Value) -> np.ndarray:
    """``array`` in ``value``'s element type."""
    return np.asarray(array).astype(value.dtype.numpy)


def wide(array: np.ndarray) -> np.ndarray:
    """Floats as float64, to compute with constants before one rounding at the end; integers as they are."""
    return array.astype(np.float64) if dtypes.from_numpy(array.dtype).is_float else array
