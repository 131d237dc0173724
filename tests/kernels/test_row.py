"""Normalisations along a row against numpy: lengths that straddle vectors, views, fused ends, special values."""

import harness
import numpy as np
import pytest

from redline.base.dtypes import bfloat16, bool_, float16, float32, float64
from redline.base.errors import RedlineError
from redline.kernels import row
from redline.kernels.expr import Acc, Expr, Load, call, cast, coordinates, index, lit
from redline.kernels.problem import Operand
from redline.kernels.row import Problem, Schedule

TARGET = harness.TARGETS["avx512"]
KINDS = row.problem.KINDS


def plain(kind: str, operand: Operand, out: Operand | None = None) -> Problem:
    dtype = operand.dtype if operand.dtype == float64 else float32
    x = cast(Load(operand.dtype, 0, coordinates(len(operand.shape))), dtype)
    out = out or Operand.contiguous(operand.dtype, operand.shape)
    return Problem(kind, (operand,), (out,), x, cast(Acc(dtype), out.dtype), 1e-5)


def check(problem: Problem, **options: object) -> None:
    harness.check(row.FAMILY, problem, TARGET, [Schedule(1), Schedule(3)], **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 64, 128, 197, 1000])
def test_lengths(kind: str, length: int) -> None:
    check(plain(kind, Operand.contiguous(float32, (3, 4, length))), rtol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [float64, float16, bfloat16], ids=str)
def test_types(kind: str, dtype: object) -> None:
    check(plain(kind, Operand.contiguous(dtype, (5, 70))), rtol={float16: 1e-3, bfloat16: 1e-2}.get(dtype, 1e-12))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [7, 8, 31, 64, 100])
def test_rows_across_memory(kind: str, width: int) -> None:
    channels_first = Operand(float32, (2, width, 20), (20 * width, 1, width))
    check(plain(kind, channels_first), rtol=2e-6)
    check(plain(kind, channels_first, channels_first), rtol=2e-6)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (4,), (1, 1)])
def test_empty_and_single(shape: tuple[int, ...]) -> None:
    for kind in KINDS:
        check(plain(kind, Operand.contiguous(float32, shape)), rtol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_special_values(kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((8, 40)).astype(np.float32) * 30
    values[0, 3], values[1, 5], values[2, 7], values[3], values[4], values[5, 0] = np.nan, np.inf, -np.inf, -np.inf, 0, 3e38
    operand = Operand.contiguous(float32, (8, 40))
    problem = plain(kind, operand)
    if kind in ("layer_norm", "rms_norm"):
        values[5, 0] = 1e18  # its square is finite in float32
    check(problem, arrays=[values], rtol=2e-6)


def test_residual_is_added_and_written_before_the_norm() -> None:
    shape = (6, 48)
    x: Expr = call("add", Load(float32, 0, coordinates(2)), Load(float32, 1, coordinates(2)))
    scaled = call("mul", Acc(float32), Load(float32, 2, (index(1),)))
    epilogue = call("add", scaled, Load(float32, 3, (index(1),)))
    whole, vector = Operand.contiguous(float32, shape), Operand.contiguous(float32, (48,))
    for kept in (float32, bfloat16):
        writes = (whole, Operand.contiguous(kept, shape))
        check(Problem("layer_norm", (whole, whole, vector, vector), writes, x, epilogue, 1e-6), rtol=2e-6)


def test_masked_and_scaled_softmax() -> None:
    shape = (2, 3, 5, 17)
    scaled = call("mul", Load(float32, 0, coordinates(4)), lit(0.125, float32))
    x = call("where", Load(bool_, 1, (index(0), index(3))), scaled, lit(-np.inf, float32))
    reads = (Operand.contiguous(float32, shape), Operand.contiguous(bool_, (2, 17)))
    check(Problem("softmax", reads, (Operand.contiguous(float32, shape),), x, Acc(float32)), rtol=2e-6)


@pytest.mark.parametrize("name", ["avx2", "generic"])
def test_other_targets(name: str) -> None:
    for kind in KINDS:
        harness.check(row.FAMILY, plain(kind, Operand.contiguous(float32, (3, 77))), harness.TARGETS[name], rtol=2e-6)


def test_errors_say_what_is_wrong() -> None:
    operand = Operand.contiguous(float32, (2, 3))
    with pytest.raises(RedlineError, match="unknown kind 'sofmax'; did you mean 'softmax'"):
        Problem("sofmax", (), (operand,), lit(0.0, float32), Acc(float32))
    with pytest.raises(RedlineError, match="a prologue of type float16; allowed: float32, float64"):
        Problem("softmax", (), (operand,), lit(0.0, float16), Acc(float32))
    with pytest.raises(RedlineError, match=r"writes of shapes \[\(\)\]; allowed: one or two, of one shape of rank >= 1"):
        Problem("softmax", (), (Operand.contiguous(float32, ()),), lit(0.0, float32), Acc(float32))
    with pytest.raises(RedlineError, match="an epilogue of type float64 for a write of float32"):
        Problem("softmax", (), (operand,), lit(0.0, float32), Acc(float64))
