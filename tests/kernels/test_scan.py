"""Scans against numpy."""

import harness
import pytest

from redline.base import dtypes
from redline.base.dtypes import bfloat16, float16, float32, float64, int32, int64
from redline.base.errors import RedlineError
from redline.kernels import scan
from redline.kernels.expr import Load, coordinates, lit
from redline.kernels.problem import Operand
from redline.kernels.scan import Problem, Schedule

TARGET = harness.TARGETS["avx512"]


@pytest.mark.parametrize("kind", scan.problem.KINDS)
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_kinds_and_directions(kind: str, exclusive: bool, reverse: bool) -> None:
    for shape in [(1,), (3, 17), (2, 3, 33), (4, 0)]:
        x = Operand.contiguous(float32, shape)
        body = Load(float32, 0, coordinates(len(shape)))
        harness.check(scan.FAMILY, Problem(kind, (x,), x, body, exclusive, reverse), TARGET, [Schedule(1), Schedule(3)])


@pytest.mark.parametrize("dtype", [float64, float16, bfloat16, int32, int64], ids=str)
def test_types_and_strides(dtype: dtypes.DType) -> None:
    x, out = Operand.contiguous(dtype, (5, 20)), Operand(dtype, (5, 20), (1, 5))
    body = Load(dtype, 0, coordinates(2))
    harness.check(scan.FAMILY, Problem("sum", (x,), out, body), TARGET, rtol=1e-2 if dtype.size == 2 else 1e-6)


def test_errors_say_what_is_wrong() -> None:
    x = Operand.contiguous(float32, (2,))
    with pytest.raises(RedlineError, match="unknown kind 'max'"):
        Problem("max", (), x, lit(0.0, float32))
    with pytest.raises(RedlineError, match=r"a body of float64 for float32\[2\]"):
        Problem("sum", (), x, lit(0.0, float64))
