"""Biases that the sums begin with: which epilogues have one, and what is left of them."""

import pytest

from redline.base.dtypes import float32, int32
from redline.kernels import start
from redline.kernels.expr import Acc, Load, call, index, lit
from redline.kernels.problem import Operand
from redline.kernels.start import Start

READS = (Operand.contiguous(float32, (4, 8)), Operand.contiguous(float32, (8, 16)), Operand.contiguous(float32, (16,)))
SUM, BIAS = Acc(float32), Load(float32, 2, (index(1),))
TOTAL = call("add", SUM, BIAS)


def test_a_bias_leaves_the_epilogue():
    relu = call("max", TOTAL, lit(0.0, float32))
    assert start.of(relu, READS, 1) == Start(2, call("max", SUM, lit(0.0, float32)))


def test_a_sum_that_is_used_twice_is_so_without_its_bias():
    silu = call("mul", TOTAL, call("sigmoid", TOTAL))
    assert start.of(silu, READS, 1) == Start(2, call("mul", SUM, call("sigmoid", SUM)))


@pytest.mark.parametrize(
    "epilogue",
    [
        SUM,
        call("mul", TOTAL, SUM),  # the sum alone is used as well
        call("add", SUM, lit(1.0, float32)),
        call("mul", SUM, BIAS),
        call("add", SUM, Load(float32, 2, (index(0),))),  # of the row
        call("add", SUM, Load(float32, 2, (call("mod", index(1), lit(4, index(1).dtype)),))),
        call("add", Acc(int32), Load(int32, 2, (index(1),))),
    ],
    ids=repr,
)
def test_other_epilogues_begin_at_zero(epilogue):
    assert start.of(epilogue, READS, 1) is None


def test_every_second_element_is_no_bias():
    assert start.of(TOTAL, (*READS[:2], Operand(float32, (16,), (2,))), 1) is None
