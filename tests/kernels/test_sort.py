"""Sorting against numpy: few and many of a row, ties, NaN, types, strided rows."""

import harness
import numpy as np
import pytest

from redline.base import dtypes
from redline.base.dtypes import bfloat16, float16, float32, float64, int8, int32, int64, uint8, uint64
from redline.base.errors import RedlineError
from redline.kernels import sort
from redline.kernels.expr import Load, coordinates, lit
from redline.kernels.problem import Operand
from redline.kernels.sort import Problem, Schedule

TARGET = harness.TARGETS["avx512"]


def problem(shape: tuple[int, ...], count: int, dtype: dtypes.DType = float32, largest: bool = True) -> Problem:
    x, out = Operand.contiguous(dtype, shape), (*shape[:-1], count)
    writes = Operand.contiguous(dtype, out), Operand.contiguous(int64, out)
    return Problem((x,), *writes, Load(dtype, 0, coordinates(len(shape))), shape[-1], largest)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("length", "count"), [(1, 1), (5, 0), (10, 3), (33, 33), (200, 96), (200, 97), (200, 200)])
def test_lengths_with_ties_and_nan(length: int, count: int, largest: bool) -> None:
    made = problem((3, 2, length), count, largest=largest)
    values = np.round(np.random.default_rng(0).standard_normal((3, 2, length)) * 4).astype(np.float32)
    values[0, 0, :: max(1, length // 3)] = np.nan
    values[1, 0, 0], values[1, 1, -1], values[2, 0, 0] = np.inf, -np.inf, -0.0
    harness.check(sort.FAMILY, made, TARGET, [Schedule(1), Schedule(4)], arrays=[values], rtol=0)


@pytest.mark.parametrize("dtype", [float64, float16, bfloat16, uint8, int8, int32, int64, uint64], ids=str)
def test_types(dtype: dtypes.DType) -> None:
    for count in (5, 120):
        harness.check(sort.FAMILY, problem((2, 150), count, dtype), TARGET, rtol=0)


def test_rows_along_another_axis() -> None:
    x = Operand(float32, (4, 30), (1, 4))
    out = Operand(float32, (4, 7), (1, 4)), Operand(int32, (4, 7), (1, 4))
    harness.check(sort.FAMILY, Problem((x,), *out, Load(float32, 0, coordinates(2)), 30), TARGET, rtol=0)


def test_errors_say_what_is_wrong() -> None:
    x = Operand.contiguous(float32, (2, 3))
    with pytest.raises(RedlineError, match=r"writes of \[2, 3\] and \[2, 3\] for rows of 2"):
        Problem((), x, Operand.contiguous(int64, (2, 3)), lit(0.0, float32), 2)
    with pytest.raises(RedlineError, match="keys of float64 for values of float32 and indices of int64"):
        Problem((), x, Operand.contiguous(int64, (2, 3)), lit(0.0, float64), 3)
