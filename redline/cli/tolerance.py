"""How far an engine's answer may be from the witness's: one row a data type, with the reason for its numbers.

``relative_l2`` bounds |actual - expected| / |expected| over a whole output: it sees errors that are everywhere.
``relative_max`` bounds the largest error of one element as a part of the largest expected element: it sees an error in
one place, which a norm over a million elements would hide. ``max_steps`` allows integers to be off by that much anywhere.
"""

import math
from dataclasses import dataclass

from redline.base import dtypes
from redline.base.dtypes import DType


@dataclass(frozen=True)
class Tolerance:
    relative_l2: float
    relative_max: float
    max_steps: int
    reason: str


_EXACT = Tolerance(0, 0, 0, "indices, counts and truth values: there is no rounding that would excuse a difference")
_QUANTISED = Tolerance(math.inf, 0, 1, "a requantised value next to a tie may round to either neighbour")

TABLE: dict[DType, Tolerance] = {
    dtypes.float64: Tolerance(
        1e-10, 1e-9, 0, "unit 1e-16; sums of 1e4 terms in another order lose 1e-14, a deep net 1e3 times that"
    ),
    dtypes.float32: Tolerance(
        1e-4, 1e-3, 0, "unit 6e-8; other summation orders give 1e-6 at a net's end, Winograd transforms 1e-5; a wrong term 1e-2"
    ),
    dtypes.float16: Tolerance(
        5e-3, 2e-2, 0, "unit 5e-4; every layer rounds once, and ten layers of independent roundings add up"
    ),
    dtypes.bfloat16: Tolerance(3e-2, 1e-1, 0, "unit 4e-3; every layer rounds once, as for float16"),
    dtypes.uint8: _QUANTISED,
    dtypes.int8: _QUANTISED,
    dtypes.uint16: _EXACT,
    dtypes.int16: _EXACT,
    dtypes.uint32: _EXACT,
    dtypes.int32: _EXACT,
    dtypes.uint64: _EXACT,
    dtypes.int64: _EXACT,
    dtypes.bool_: _EXACT,
}
