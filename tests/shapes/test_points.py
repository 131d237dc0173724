"""Kernels of open extents are timed at several shapes, and chosen by all of them."""

from redline.base import dtypes
from redline.base.extents import dimension, nominal, retuned
from redline.kernels.expr import Acc
from redline.kernels.matmul.problem import Problem
from redline.kernels.problem import Operand
from redline.tune.points import points, scores

B, S = dimension(0, 1, 32, 16), dimension(1, 1, 512, 256)


def product(rows) -> Problem:
    a, b, out = ((rows, 64), (64, 32), (rows, 32))
    float32 = dtypes.float32
    return Problem(Operand.contiguous(float32, a), Operand.contiguous(float32, b, True), Operand.contiguous(float32, out),
                   Acc(float32))  # fmt: skip


def test_an_extent_is_tuned_for_a_smaller_shape():
    assert [nominal(retuned(B * S, share)) for share in (1.0, 0.5, 0.25)] == [16 * 256, 4 * 16, 2 * 4]
    assert retuned((B, (S, 3)), 0.5)[1][1] == 3 and str(retuned(B * S, 0.5)) == str(B * S)


def test_open_problems_have_three_points_and_closed_ones_one():
    found = points(product(B * S))
    assert [p.suffix for p in found] == ["", " at 0.5", " at 0.25"]
    assert [nominal(p.reads[0].shape[0]) for p in found] == [4096, 64, 8]
    assert [p.suffix for p in points(product(7))] == [""]
    assert len(points(product(dimension(0, 1, 2, 2)))) == 2  # the points that are one are timed once


def test_a_schedule_that_is_bad_at_small_shapes_loses():
    places = points(product(B * S))
    times = {"tall": 1.00, "wide": 0.98, "tall at 0.5": 1.0, "wide at 0.5": 1.1, "tall at 0.25": 1.0, "wide at 0.25": 1.3}
    found = scores(times, ["tall", "wide"], places)
    assert found["tall"] < found["wide"] and found["tall"] >= 1


def test_a_schedule_that_was_not_timed_loses():
    found = scores({"a": 1.0}, ["b", "a"], points(product(7)))
    assert found["b"] == float("inf") and found["a"] == 1
