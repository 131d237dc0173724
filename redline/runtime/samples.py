"""Random inputs for an engine: values that a model is likely to accept."""

from collections.abc import Sequence

import numpy as np

from redline.base import dtypes
from redline.engine import IO

RANDOM_RULE = "floats normal, 8-bit integers over their range, other integers and truth values 0 or 1"


def random_array(io: IO, rng: np.random.Generator) -> np.ndarray:
    """Wide integers may be indices or flags, and 0 and 1 are valid as both."""
    dtype = dtypes.from_name(io.dtype)
    if dtype.is_float:
        return rng.standard_normal(io.shape).astype(dtype.numpy)
    if dtype.is_integer and dtype.size == 1:
        limits = np.iinfo(dtype.numpy)
        return rng.integers(limits.min, limits.max, io.shape, dtype.numpy, endpoint=True)
    return rng.integers(0, 2, io.shape).astype(dtype.numpy)


def random_inputs(inputs: Sequence[IO], seed: int) -> dict[str, np.ndarray]:
    """An array for every input; the same seed gives the same arrays."""
    rng = np.random.default_rng(seed)
    return {io.name: random_array(io, rng) for io in inputs}
