"""Pools against numpy: geometry with padding, dilation and overhang, types, channels that straddle vectors."""

import harness
import numpy as np
import pytest

from redline.base.dtypes import DType, bfloat16, float16, float32, float64, int8, uint8
from redline.base.errors import RedlineError
from redline.kernels import pool
from redline.kernels.expr import Acc, Load, call, cast, index, lit
from redline.kernels.pool import Problem, Schedule, Window
from redline.kernels.problem import Operand

TARGET = harness.TARGETS["avx512"]


def plain(kind: str, x: Operand, out: tuple[int, ...], *windows: Window, count_padding: bool = False) -> Problem:
    acc = x.dtype if (kind == "max" and x.dtype.size > 2) or x.dtype.is_integer else float64 if x.dtype == float64 else float32
    shape = (x.shape[0], *out, x.shape[-1])
    return Problem(kind, (x,), Operand.contiguous(x.dtype, shape), windows, cast(Acc(acc), x.dtype), count_padding)


def check(problem: Problem, **options: object) -> None:
    options.setdefault("rtol", 1e-6 if problem.kind == "average" else 0)
    harness.check(pool.FAMILY, problem, TARGET, [Schedule(1), Schedule(5)], **options)


GEOMETRIES = [
    (Window(3, 2, 1, 1, 1), 13, 7),
    (Window(5, 1, 1, 2, 2), 6, 6),
    (Window(2, 2), 9, 5),  # overhangs by one, as with ceil_mode
    (Window(3, 1, 2, 2, 2), 8, 8),
    (Window(3, 3, 1, 1, 0), 7, 3),
    (Window(7), 7, 1),
]


@pytest.mark.parametrize("kind", pool.problem.KINDS)
@pytest.mark.parametrize(("window", "extent", "out"), GEOMETRIES)
def test_geometry(kind: str, window: Window, extent: int, out: int) -> None:
    x = Operand.contiguous(float32, (2, extent, extent, 20))
    check(plain(kind, x, (out, out), window, window))
    check(plain(kind, x, (out, out), window, window, count_padding=True))


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 64, 65, 150])
def test_channels(channels: int) -> None:
    x = Operand.contiguous(float32, (1, 6, 5, channels))
    check(plain("max", x, (3, 3), Window(3, 2, 1, 1, 1), Window(3, 2, 1, 1, 1)))


@pytest.mark.parametrize("kind", pool.problem.KINDS)
@pytest.mark.parametrize("dtype", [uint8, int8, float16, bfloat16, float64], ids=str)
def test_types(kind: str, dtype: DType) -> None:
    if kind == "average" and dtype.is_integer:
        pytest.skip("ONNX averages floats only")
    x = Operand.contiguous(dtype, (1, 9, 9, 70))
    rtol = {float16: 1e-3, bfloat16: 1e-2}.get(dtype, 1e-6)
    check(plain(kind, x, (5, 5), Window(3, 2, 1, 1, 1), Window(3, 2, 1, 1, 1)), rtol=rtol)


@pytest.mark.parametrize("kind", pool.problem.KINDS)
def test_one_and_three_dimensions(kind: str) -> None:
    check(plain(kind, Operand.contiguous(float32, (2, 17, 18)), (9,), Window(3, 2, 1, 1, 1)))
    cube = Operand.contiguous(float32, (1, 5, 6, 7, 9))
    check(plain(kind, cube, (3, 3, 4), *[Window(3, 2, 1, 1, 1)] * 3))


def test_strided_operands_and_an_epilogue() -> None:
    x = Operand(float32, (1, 8, 8, 24), (8 * 8 * 60, 8 * 60, 60, 2))
    out = Operand(float32, (1, 4, 4, 24), (0, 24 * 16, 24 * 4, 1))
    body = call("max", call("add", Acc(float32), Load(float32, 1, (index(3),))), lit(0.0, float32))
    reads = (x, Operand.contiguous(float32, (24,)))
    check(Problem("max", reads, out, (Window(2, 2), Window(2, 2)), body))


@pytest.mark.parametrize("kind", pool.problem.KINDS)
def test_special_values(kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((1, 9, 9, 20)).astype(np.float32)
    values[0, 4, 4, 3], values[0, 2, 2, 5], values[0, :, :, 7] = np.nan, np.inf, -np.inf
    x = Operand.contiguous(float32, (1, 9, 9, 20))
    check(plain(kind, x, (9, 9), Window(3, 1, 1, 1, 1), Window(3, 1, 1, 1, 1)), arrays=[values])


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 4, 4, 0)])
def test_empty(shape: tuple[int, ...]) -> None:
    check(plain("max", Operand.contiguous(float32, shape), (2, 2), Window(2, 2), Window(2, 2)))


@pytest.mark.parametrize("name", ["avx2", "generic"])
def test_other_targets(name: str) -> None:
    x = Operand.contiguous(float32, (1, 9, 9, 37))
    problem = plain("average", x, (5, 5), Window(3, 2, 1, 1, 1), Window(3, 2, 1, 1, 1))
    harness.check(pool.FAMILY, problem, harness.TARGETS[name], rtol=1e-6)


def test_errors_say_what_is_wrong() -> None:
    x = Operand.contiguous(float32, (1, 4, 4, 3))
    with pytest.raises(RedlineError, match="unknown kind 'mean'"):
        Problem("mean", (x,), x, (Window(1), Window(1)), Acc(float32))
    with pytest.raises(RedlineError, match="with 1 windows do not fit together"):
        Problem("max", (x,), x, (Window(1),), Acc(float32))
    with pytest.raises(RedlineError, match="an epilogue of type float64 for an output of float32"):
        Problem("max", (x,), x, (Window(1), Window(1)), Acc(float64))
