"""A convolution of one tap and the depthwise one behind it, in one kernel, against numpy: bands, parts, borders, epilogues."""

from dataclasses import replace

import numpy as np
import pytest
from harness import TARGETS, check

from redline.base.dtypes import bfloat16, float32
from redline.kernels import conv, depthwise
from redline.kernels.expanded import FAMILY, Problem, Schedule
from redline.kernels.expanded.problem import applies
from redline.kernels.expanded.schedule import is_legal
from redline.kernels.expr import Acc, Load, call, index, lit
from redline.kernels.problem import Operand

C = Operand.contiguous
AVX512 = TARGETS["avx512"]


def relu6(value):
    return call("min", call("max", value, lit(0.0, float32)), lit(6.0, float32))


def biased(channels: int):
    """Acc + bias, and the operand of the bias."""
    return call("add", Acc(float32), Load(float32, 2, (index(3),))), (C(float32, (channels,), True),)


def pair(
    size: tuple[int, int], channels: int, wide: int, taps: int = 3, stride: int = 1, batch: int = 1, pads: tuple[int, ...] = ()
):
    """The two convolutions; ``pads`` default to half the taps on every side."""
    first_value, bias = biased(wide)
    held = C(float32, (batch, *size, wide))
    first = conv.Problem(
        C(float32, (batch, *size, channels)),
        C(float32, (wide, channels, 1, 1), True),
        held,
        relu6(first_value),
        bias,
        pads=(0,) * 4,
    )
    pads = pads or (taps // 2,) * 4
    out = tuple((size[i] + pads[i] + pads[2 + i] - taps) // stride + 1 for i in range(2))
    second_value, bias = biased(wide)
    second = depthwise.Problem(
        held, C(float32, (wide, 1, taps, taps), True), C(float32, (batch, *out, wide)), relu6(second_value), bias,
        (stride, stride), (1, 1), pads, wide,
    )  # fmt: skip
    return first, second


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size, channels, wide", [((14, 14), 16, 96), ((7, 7), 24, 40), ((9, 11), 5, 17), ((1, 20), 3, 16)])
def test_against_numpy(target, stride, size, channels, wide):
    check(FAMILY, Problem(*pair(size, channels, wide, stride=stride)), target)


def test_every_candidate():
    problem = Problem(*pair((15, 13), 8, 144, stride=2, batch=2))
    candidates = FAMILY.schedules(problem, AVX512)
    assert len(candidates) >= 4
    check(FAMILY, problem, AVX512, candidates)


@pytest.mark.parametrize("bands, parts", [(1, 1), (5, 1), (1, 3), (3, 2), (14, 3)])
@pytest.mark.parametrize("rows, vectors", [(14, 2), (5, 1), (6, 4)])
def test_bands_and_parts(bands, parts, rows, vectors):
    problem = Problem(*pair((14, 14), 8, 100))
    schedule = Schedule(rows, vectors, 5, bands, parts)
    if is_legal(problem, schedule, AVX512):
        check(FAMILY, problem, AVX512, [schedule])
    else:
        assert parts > -(-100 // (16 * vectors))


def test_weights_asked_for_ahead():
    problem = Problem(*pair((7, 7), 64, 800))
    assert any(s.prefetch for s in FAMILY.schedules(problem, AVX512))
    check(FAMILY, problem, AVX512, [s for s in FAMILY.schedules(problem, AVX512) if s.prefetch][:2])


def test_pads_on_one_side_and_five_taps():
    check(FAMILY, Problem(*pair((12, 10), 8, 32, stride=2, pads=(0, 0, 1, 1))), AVX512)
    check(FAMILY, Problem(*pair((12, 10), 8, 32, taps=5)), AVX512)


def test_a_view_of_more_channels_as_input():
    first, second = pair((8, 8), 16, 48)
    wide = Operand(float32, first.x.shape, (8 * 8 * 40, 8 * 40, 40, 1))
    check(FAMILY, Problem(replace(first, x=wide), second), AVX512)


def test_what_is_not_joined():
    first, second = pair((8, 8), 16, 48)
    assert applies(first, second)
    apart = Operand(float32, first.x.shape, (8 * 10 * 16, 10 * 16, 16, 1))  # rows with something between them
    assert not applies(replace(first, x=apart), second)
    assert not applies(replace(first, w=replace(first.w, constant=False)), second)
    assert not applies(first, replace(second, x=replace(second.x, dtype=bfloat16), w=replace(second.w, dtype=bfloat16)))
    with pytest.raises(AssertionError, match="not to be joined"):
        Problem(first, replace(second, pad_value=1))


def test_reference_is_one_after_the_other():
    problem = Problem(*pair((4, 4), 3, 5))
    arrays = [np.ones(operand.shape, np.float32) for operand in problem.reads]
    (found,) = FAMILY.reference(problem, arrays)
    assert found.shape == (1, 4, 4, 5) and found[0, 0, 0, 0] == 6.0  # four pixels of min(3 + 1, 6), and 1: cut at 6
