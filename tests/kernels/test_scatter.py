"""Scatters against numpy: by element and by slice, folds, foreign and negative indices, types."""

import harness
import numpy as np
import pytest

from redline.base import dtypes
from redline.base.dtypes import float16, float32, int32, int64
from redline.base.errors import RedlineError
from redline.kernels import scatter
from redline.kernels.expr import Load, call, coordinates, index, integer, lit
from redline.kernels.problem import Operand
from redline.kernels.scatter import Problem

TARGET = harness.TARGETS["avx512"]


def elements(dtype: dtypes.DType, fold: str) -> Problem:
    """Updates [4, 9] along axis 0 of data [6, 9]."""
    updates, data = Operand.contiguous(dtype, (4, 9)), Operand.contiguous(dtype, (6, 9))
    row = Load(int64, 2, coordinates(2))
    row = call("where", call("lt", row, integer(0), dtype=dtypes.bool_), call("add", row, integer(6)), row)
    reads = (data, updates, Operand.contiguous(int64, (4, 9)))
    place = (row, index(1))
    return Problem(reads, data, Load(dtype, 0, coordinates(2)), (4, 9), place, Load(dtype, 1, coordinates(2)), fold)


@pytest.mark.parametrize("fold", scatter.problem.FOLDS)
@pytest.mark.parametrize("dtype", [float32, int32, float16], ids=str)
def test_elements(dtype: dtypes.DType, fold: str) -> None:
    problem = elements(dtype, fold)
    arrays = harness.random_arrays(problem.reads)
    arrays[2] = np.random.default_rng(1).integers(-6, 6, (4, 9))
    arrays[2][0, :3] = [6, -7, 1 << 40]  # left out
    harness.check(scatter.FAMILY, problem, TARGET, arrays=arrays, rtol=2e-3 if dtype == float16 else 1e-6)


def test_slices_at_run_time_places() -> None:
    data, updates = Operand.contiguous(float32, (3, 8, 20)), Operand.contiguous(float32, (5, 20))
    place = (Load(int64, 2, (index(0), integer(0))), Load(int64, 2, (index(0), integer(1))), index(1))
    reads = (data, updates, Operand.contiguous(int64, (5, 2)))
    problem = Problem(reads, data, Load(float32, 0, coordinates(3)), (5, 20), place, Load(float32, 1, coordinates(2)))
    arrays = harness.random_arrays(reads)
    arrays[2] = np.array([[0, 1], [2, 7], [1, 1], [0, 1], [2, 8]])
    harness.check(scatter.FAMILY, problem, TARGET, arrays=arrays, rtol=0)


@pytest.mark.parametrize("extents", [(0,), (7,)])
def test_constant_fill_and_empty_updates(extents: tuple[int, ...]) -> None:
    out = Operand(float32, (4, 5), (1, 4))
    place = (integer(2), call("mod", index(0), integer(5)))
    problem = Problem((), out, lit(1.5, float32), extents, place, lit(2.0, float32), "add")
    harness.check(scatter.FAMILY, problem, TARGET, rtol=0)


def test_errors_say_what_is_wrong() -> None:
    good = elements(float32, "none")
    with pytest.raises(RedlineError, match="unknown fold 'ad'; did you mean 'add'"):
        elements(float32, "ad")
    with pytest.raises(RedlineError, match=r"a place of 1 coordinates in \[6, 9\]; one int64 an axis"):
        Problem(good.reads, good.out, good.initial, good.extents, (index(0),), good.value)
    with pytest.raises(RedlineError, match="values of float32 and int64 for an output of float32"):
        Problem(good.reads, good.out, good.initial, good.extents, good.place, integer(1))
