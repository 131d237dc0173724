"""Depthwise convolutions against numpy: borders, strides, dilations, views, types, every schedule, every target."""

import numpy as np
import pytest
from harness import TARGETS, check, random_arrays

from redline.base.dtypes import bfloat16, float16, float32, float64, int8
from redline.kernels import depthwise
from redline.kernels.dot import accumulator
from redline.kernels.expr import Acc, Load, call, index
from redline.kernels.problem import Operand

FAMILY = depthwise.FAMILY
AVX512 = TARGETS["avx512"]
C = Operand.contiguous


def problem(
    x: Operand, taps: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], pads: tuple[int, ...],
    constant: bool = True, pad_value: int = 0,
) -> depthwise.Problem:  # fmt: skip
    rank, channels = len(taps), x.shape[-1]
    spatial = tuple(
        (x.shape[1 + i] + pads[i] + pads[rank + i] - (taps[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(rank)
    )
    acc = accumulator(x.dtype)
    out = C(acc, (x.shape[0], *spatial, channels))
    value = call("add", Acc(acc), Load(acc, 2, (index(rank + 1),)))
    w = C(x.dtype, (channels, 1, *taps), constant)
    return depthwise.Problem(x, w, out, value, (C(acc, (channels,)),), strides, dilations, pads, channels, pad_value)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 31, 33, 64])
@pytest.mark.parametrize("stride", [1, 2])
def test_straddling_channels(target, channels, stride):
    check(FAMILY, problem(C(float32, (1, 9, 21, channels)), (3, 3), (stride, stride), (1, 1), (1,) * 4), target)


@pytest.mark.parametrize("constant", [True, False])
def test_every_schedule(constant):
    case = problem(C(float32, (2, 12, 31, 55)), (3, 5), (2, 1), (1, 2), (1, 0, 2, 3), constant)
    candidates = FAMILY.schedules(case, AVX512)
    assert len(candidates) >= 4
    check(FAMILY, case, AVX512, candidates)


@pytest.mark.parametrize("channels", [32, 48, 71])
@pytest.mark.parametrize("stride", [1, 2])
def test_pairs_of_bfloat16(channels, stride):
    case = problem(C(bfloat16, (2, 9, 21, channels)), (3, 3), (stride, stride), (1, 1), (1,) * 4)
    paired = [schedule for schedule in FAMILY.schedules(case, AVX512) if schedule.paired]
    assert len(paired) >= 2
    check(FAMILY, case, AVX512, paired, rtol=1e-2)


@pytest.mark.parametrize("rows, columns", [(2, 7), (2, 4), (3, 5), (4, 1)])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("staged", [False, True])
def test_tiles_of_rows(rows, columns, stride, dilation, staged):
    case = problem(C(float32, (2, 14, 21, 40)), (3, 3), (stride, 1), (dilation, 1), (2, 1, 1, 1))
    for bands in (1, 3):  # of which some have rows left over
        check(FAMILY, case, AVX512, [depthwise.Schedule(columns, bands, staged=staged, ahead=not staged, rows=rows)])


def test_tiles_of_rows_are_for_images_that_have_them():
    tall = problem(C(float32, (1, 14, 14, 64)), (3, 3), (1, 1), (1, 1), (1,) * 4)
    flat = problem(C(float32, (1, 14, 14, 64)), (1, 3), (1, 1), (1, 1), (0, 1, 0, 1))
    assert FAMILY.schedules(tall, AVX512)[0].rows == 2
    assert all(schedule.rows == 1 for schedule in FAMILY.schedules(flat, AVX512))


def test_asking_ahead_changes_nothing():
    case = problem(C(float32, (1, 9, 21, 40)), (3, 3), (2, 1), (1, 1), (1,) * 4)
    check(FAMILY, case, AVX512, [depthwise.Schedule(5, 3, ahead=True)])


def test_pairs_need_bfloat16_and_two_vectors():
    for dtype, channels in ((float32, 64), (bfloat16, 31)):
        case = problem(C(dtype, (1, 9, 9, channels)), (3, 3), (1, 1), (1, 1), (1,) * 4)
        assert not any(schedule.paired for schedule in FAMILY.schedules(case, AVX512))


def test_one_and_three_axes():
    check(FAMILY, problem(C(float32, (1, 30, 33)), (5,), (2,), (3,), (4, 4)), AVX512)
    case = problem(C(float32, (1, 5, 6, 7, 20)), (3, 3, 3), (1, 2, 1), (2, 1, 1), (1,) * 6, constant=False)
    check(FAMILY, case, AVX512, FAMILY.schedules(case, AVX512))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_more_padding_than_image(size):
    case = problem(C(float32, (1, size, size, 18)), (5, 5), (1, 1), (1, 1), (2,) * 4)
    check(FAMILY, case, AVX512, FAMILY.schedules(case, AVX512))


@pytest.mark.parametrize("dtype", [float64, int8, float16, bfloat16], ids=repr)
def test_types(dtype):
    check(FAMILY, problem(C(dtype, (1, 9, 9, 33)), (3, 3), (2, 2), (1, 1), (1,) * 4), AVX512)


def test_views():
    planar = Operand(float32, (1, 9, 9, 20), (9 * 9 * 20, 9, 1, 81))
    check(FAMILY, problem(planar, (3, 3), (1, 1), (1, 1), (1,) * 4), AVX512)
    wide = Operand(float32, (1, 9, 9, 20), (9 * 9 * 32, 9 * 32, 32, 1))
    check(FAMILY, problem(wide, (3, 3), (1, 1), (1, 1), (1,) * 4), AVX512)


def test_nan_and_infinities_reach_their_neighbours_only():
    case = problem(C(float32, (1, 9, 9, 20)), (3, 3), (1, 1), (1, 1), (1,) * 4)
    arrays = [np.array(array) for array in random_arrays(case.reads)]
    arrays[0][0, 4, 4, 3], arrays[0][0, 0, 0, 0] = np.nan, np.inf
    check(FAMILY, case, AVX512, arrays=arrays)


@pytest.mark.parametrize("dtype", [float32, int8], ids=repr)
def test_padding_with_a_zero_point(dtype):
    case = problem(C(dtype, (1, 9, 9, 20)), (3, 3), (1, 1), (1, 1), (1,) * 4, pad_value=5)
    check(FAMILY, case, AVX512, FAMILY.schedules(case, AVX512))
