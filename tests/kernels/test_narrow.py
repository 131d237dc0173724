"""Epilogues that end in 8 bits: the packed way gives what the expression says, at every width, zero point and extreme."""

from dataclasses import replace

import numpy as np
import pytest
from harness import FULL, GROUPING, TARGETS, check, random_arrays

from redline.base.dtypes import float32, int8, int32, uint8
from redline.kernels import conv, matmul, narrow
from redline.kernels.expr import Acc, Expr, Load, call, cast, index, lit
from redline.kernels.matmul import gemm
from redline.kernels.problem import CpuTarget, Operand


def quantized(value: Expr, zero: int, high: int = 255) -> Expr:
    held = call("min", call("max", value, lit(float(-zero), float32)), lit(float(high - zero), float32))
    return cast(call("add", call("rint32", held, dtype=int32), lit(zero, int32)), uint8)


def cut_last(value: Expr, zero: int) -> Expr:
    whole = call("add", call("rint32", value, dtype=int32), lit(zero, int32))
    return cast(call("min", call("max", whole, lit(0, int32)), lit(255, int32)), uint8)


def scaled(column: int, rank: int) -> Expr:
    """acc * scale + shift of the column, plus a byte of a residual."""
    product = call("mul", cast(Acc(int32), float32), Load(float32, 2, (index(column),)))
    whole = tuple(index(axis) for axis in range(rank))
    residual = call("mul", cast(Load(uint8, 4, whole), float32), lit(0.75, float32))
    return call("add", call("add", product, Load(float32, 3, (index(column),))), residual)


def product(n: int, zero: int, batch: tuple[int, ...] = (2, 3), m: int = 5, k: int = 12) -> matmul.Problem:
    shape = (*batch, m, n)
    b = Operand(int8, (*batch, k, n), (*(0 for _ in batch), n, 1), constant=True)
    extra = (Operand.contiguous(float32, (n,)), Operand.contiguous(float32, (n,)), Operand.contiguous(uint8, shape))
    a, out = Operand.contiguous(uint8, (*batch, m, k)), Operand.contiguous(uint8, shape)
    return matmul.Problem(a, b, out, quantized(scaled(len(shape) - 1, len(shape)), zero), extra)


@pytest.mark.parametrize("zero", [0, 130])
@pytest.mark.parametrize("n", [1, 15, 17, 33, 48, 112])
@pytest.mark.parametrize("target", GROUPING)
def test_matmul(n: int, zero: int, target: CpuTarget) -> None:
    problem = product(n, zero)
    check(matmul.FAMILY, problem, target, arrays=_with(problem, 0.5, zero), rtol=0)


@pytest.mark.parametrize("n", [17, 80])
@pytest.mark.parametrize("zero", [0, 130])
def test_what_is_small_is_cut_last(n: int, zero: int) -> None:
    problem = product(n, zero)
    problem = replace(problem, epilogue=cut_last(scaled(3, 4), zero))
    assert narrow.of(problem.epilogue, FULL)
    for target in (FULL, TARGETS["avx2"]):
        check(matmul.FAMILY, problem, target, arrays=_with(problem, 3.5, zero), rtol=0)


@pytest.mark.parametrize("scale", [0.5, 1e9, -1e9, np.inf])
def test_extremes(scale: float) -> None:
    """Halves round to even; what is far beyond int32 still saturates on its side."""
    problem = product(64, 3)
    arrays = _with(problem, scale, 0)
    if scale == np.inf:
        arrays[0], arrays[1] = np.maximum(arrays[0], 1), np.maximum(arrays[1], 1)  # no infinity times zero
    check(matmul.FAMILY, problem, FULL, matmul.FAMILY.schedules(problem, FULL)[:6], arrays=arrays, rtol=0)


@pytest.mark.parametrize("target", ["avx512", "avx2"])
def test_other_targets(target: str) -> None:
    problem = product(70, 7)
    check(matmul.FAMILY, problem, TARGETS[target], arrays=_with(problem, 0.5, 7), rtol=0)


@pytest.mark.parametrize("filters", [8, 40, 64])
def test_convolution(filters: int) -> None:
    out = (1, 6, 5, filters)
    extra = (
        Operand.contiguous(float32, (filters,)), Operand.contiguous(float32, (filters,)), Operand.contiguous(uint8, out),
    )  # fmt: skip
    x, w = Operand.contiguous(uint8, (1, 6, 5, 8)), Operand.contiguous(int8, (filters, 8, 3, 3), constant=True)
    problem = conv.Problem(
        x, w, Operand.contiguous(uint8, out), quantized(scaled(3, 4), 9), extra,
        strides=(1, 1), dilations=(1, 1), pads=(1, 1, 1, 1), groups=1, pad_value=4,
    )  # fmt: skip
    check(conv.FAMILY, problem, FULL, arrays=_with(problem, 0.5, 9), rtol=0)


def _with(problem: matmul.Problem | conv.Problem, scale: float, shift: float) -> list[np.ndarray]:
    arrays = random_arrays(problem.reads)
    arrays[2], arrays[3] = np.full(arrays[2].shape, scale, np.float32), np.full(arrays[3].shape, shift, np.float32)
    return arrays


def test_other_expressions_are_left_alone() -> None:
    value = scaled(3, 4)
    assert narrow.of(quantized(value, 5), FULL)
    assert narrow.of(quantized(value, 5), TARGETS["avx2"]) is None
    assert narrow.of(quantized(value, 5, high=200), FULL) is None  # a cut of its own: not where bytes end
    assert narrow.of(cast(value, uint8), FULL) is None
    assert narrow.of(value, FULL) is None


def test_rows_that_step_evenly_need_no_division() -> None:
    problem = product(16, 0)
    assert "/ 5" not in matmul.FAMILY.render(problem, matmul.FAMILY.schedules(problem, FULL)[0], FULL).text
    turned = Operand(uint8, (2, 3, 5, 16), (240, 16, 48, 1))  # rows lie three pixels apart
    uneven = matmul.Problem(problem.a, problem.b, problem.out, problem.epilogue, (*problem.extra[:2], turned))
    assert gemm.of(uneven).m == 30
    assert "/ 5" in matmul.FAMILY.render(uneven, matmul.FAMILY.schedules(uneven, FULL)[0], FULL).text
    check(matmul.FAMILY, uneven, FULL, arrays=_with(uneven, 0.5, 3), rtol=0)
