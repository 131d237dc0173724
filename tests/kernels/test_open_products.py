"""Matrix products with an open number of rows, at sizes below, at and above a tile and a band of it."""

import pytest
from harness import GROUPING
from open_harness import check

from redline.base.dtypes import bfloat16, float32, int8, uint8
from redline.base.extents import dimension
from redline.kernels import matmul
from redline.kernels.dot import accumulator
from redline.kernels.expr import Acc, Load, call, cast, index
from redline.kernels.problem import Operand

C = Operand.contiguous
ROWS = [dimension(0, 1, 100, 40)]
POINTS = [(1,), (2,), (15,), (16,), (17,), (32,), (33,), (50,), (65,), (100,)]


def with_bias(m, n, k, a, b):
    acc = accumulator(a)
    value = call("add", Acc(acc), Load(acc, 2, (index(1),)))
    return matmul.Problem(C(a, (m, k)), C(b, (k, n), True), C(acc, (m, n)), value, (C(acc, (n,)),))


@pytest.mark.parametrize("a, b", [(float32, float32), (bfloat16, bfloat16), (uint8, int8)], ids=repr)
@pytest.mark.parametrize("n, k", [(70, 64), (33, 144)])
@pytest.mark.parametrize("target", GROUPING)
def test_open_rows(a, b, n, k, target):
    schedules = matmul.FAMILY.schedules(with_bias(ROWS[0], n, k, a, b), target)
    check(matmul.FAMILY, lambda m: with_bias(m, n, k, a, b), ROWS, POINTS, target, schedules[::2])


@pytest.mark.parametrize("target", GROUPING)
def test_rows_of_an_open_batch(target):
    """[batch, 5, k]: rows are a multiple of the dimension, results are rounded, and a residual is added."""

    def make(batch):
        shape = (batch, 5, 96)
        value = cast(call("add", Acc(float32), Load(float32, 2, (index(0), index(1), index(2)))), bfloat16)
        b = Operand(bfloat16, (batch, 96, 48), (0, 48, 1), True)
        return matmul.Problem(C(bfloat16, shape), b, C(bfloat16, (batch, 5, 48)), value, (C(float32, (batch, 5, 48)),))

    check(matmul.FAMILY, make, [dimension(0, 1, 9, 4)], [(1,), (3,), (4,), (7,), (9,)], target, rtol=1e-2)
