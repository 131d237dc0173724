"""References at the boundary values: NaN, infinities, signed zeros, type extremes, empty and one-element tensors."""

import math

import ml_dtypes
import numpy as np
import pytest

from redline import ops
from redline.base import dtypes
from redline.ir import constant
from tests.ops.build import all_reduced, both, ints

NAN, INF = np.nan, np.inf
SPECIAL = np.array([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 3e38, -3e38], np.float32)


def same(seen: np.ndarray, wanted: object) -> None:
    np.testing.assert_array_equal(seen.astype(np.float64), np.asarray(wanted, np.float64))


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu", "Elu", "Celu", "Selu", "Gelu", "Softplus", "Sigmoid", "Tanh", "HardSwish"])
def test_nan_passes_through_activations(op: str) -> None:
    assert np.isnan(both(op, SPECIAL)[0])


@pytest.mark.parametrize(("op", "wanted"), [("ThresholdedRelu", 0), ("Shrink", 0)])
def test_nan_fails_every_comparison(op: str, wanted: float) -> None:
    assert both(op, SPECIAL)[0] == wanted


def test_saturating_functions_at_the_infinities() -> None:
    same(both("Sigmoid", SPECIAL)[1:3], [1, 0])
    same(both("Tanh", SPECIAL)[1:3], [1, -1])
    same(both("Softplus", SPECIAL)[1:3], [INF, 0])
    same(both("Erf", SPECIAL)[1:3], [1, -1])
    same(both("HardSigmoid", SPECIAL)[1:3], [1, 0])
    assert both("Softplus", np.array([100.0, -100.0], np.float32))[0] == 100


def test_max_and_min_pass_nan_on() -> None:
    other = np.ones_like(SPECIAL)
    for op in ("Max", "Min"):
        assert np.isnan(both(op, SPECIAL, other)[0]) and np.isnan(both(op, other, SPECIAL)[0])


def test_clip_keeps_nan_and_prefers_the_upper_bound() -> None:
    low, high = np.array(2, np.float32), np.array(1, np.float32)
    result = both("Clip", SPECIAL, low, high)
    assert np.isnan(result[0]) and np.all(result[1:] == 1)
    same(both("Clip", SPECIAL, None, high)[1:3], [1, -INF])


def test_comparisons_with_nan_are_false() -> None:
    for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
        assert not both(op, SPECIAL, SPECIAL)[0]
    assert both("Equal", SPECIAL, SPECIAL)[1:].all()


def test_round_goes_to_even() -> None:
    same(both("Round", np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)), [0, 2, 2, 0, -2])


def test_integer_division_goes_towards_zero() -> None:
    a, b = np.array([7, -7, 7, -7, 6, -6], np.int32), np.array([2, 2, -2, -2, 3, 3], np.int32)
    same(both("Div", a, b), [3, -3, -3, 3, 2, -2])
    same(both("Div", a.astype(np.uint8)[:1], b.astype(np.uint8)[:1]), [3])


def test_mod_has_the_sign_of_the_divisor_and_fmod_of_the_dividend() -> None:
    a, b = np.array([5, -5, 5, -5], np.int64), np.array([3, 3, -3, -3], np.int64)
    same(both("Mod", a, b), [2, 1, -1, -2])
    same(both("Mod", a, b, fmod=1), [2, -2, 2, -2])


def test_pow_of_integers_with_negative_exponents() -> None:
    same(both("Pow", np.array([2, 1, -1], np.int32), np.array([-1, -5, -3], np.int32)), [0, 1, -1])
    assert both("Pow", np.array([2.0], np.float32), np.array([10], np.int64)).dtype == np.float32


def test_shift_by_the_width_and_more() -> None:
    x, by = np.array([-8, 8, -8, 8], np.int8), np.array([8, 8, 2, -1], np.int8)
    same(both("BitShift", x, by, direction="RIGHT"), [-1, 0, -2, 0])
    same(both("BitShift", x, by, direction="LEFT"), [0, 0, -32, 0])


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_computed_in_float32(kind: type) -> None:
    large = np.full(1024, 60, kind)
    assert float(all_reduced("ReduceMean", large)) == 60
    assert float(all_reduced("ReduceL2", large)) == 60 * 32  # the squares add up to more than float16 can hold
    assert both("Gelu", large).dtype == kind
    assert both("Einsum", large, large, equation="i,i->").dtype == kind


def test_reductions_of_nothing() -> None:
    empty = np.zeros((2, 0), np.float32)
    wanted = {"ReduceSum": 0, "ReduceProd": 1, "ReduceMax": -INF, "ReduceMin": INF, "ReduceMean": NAN, "ReduceL1": 0}
    wanted |= {"ReduceL2": 0, "ReduceSumSquare": 0, "ReduceLogSum": -INF, "ReduceLogSumExp": -INF}
    for op, value in wanted.items():
        same(both(op, empty, ints(1), keepdims=0), [value] * 2)
    assert both("ReduceMax", np.zeros((0,), np.int8)) == -128
    assert not both("ReduceMax", np.zeros((0,), bool)) and both("ReduceMin", np.zeros((0,), bool))


def test_log_sum_exp_neither_overflows_nor_makes_nan() -> None:
    x = np.array([[1000, 1000], [-INF, -INF], [INF, 0], [-INF, 5], [NAN, 0]], np.float32)
    seen = both("ReduceLogSumExp", x, ints(-1), keepdims=0)
    np.testing.assert_allclose(seen, [1000 + np.log(2), -INF, INF, 5, NAN], rtol=1e-6)


def test_reductions_over_no_axis() -> None:
    x = np.array([[3, -4]], np.float32)
    no_axis = {"noop_with_empty_axes": 1}
    same(both("ReduceSum", x, ints(), **no_axis), x)
    same(both("ReduceL1", x, None, **no_axis), [[3, 4]])
    same(both("ReduceSumSquare", x, ints(), **no_axis), [[9, 16]])
    same(both("ReduceSum", x, ints()), [[-1]])


def test_integer_reductions() -> None:
    x = np.array([3, -4], np.int32)
    assert both("ReduceL2", x) == 5 and both("ReduceL1", x) == 7 and both("ReduceSumSquare", x) == 25
    assert both("ReduceMean", np.array([-1, -2], np.int64)) == -1


def test_arg_extremes_at_ties_and_nan() -> None:
    x = np.array([1, 3, 3, 0, 0], np.float32)
    assert both("ArgMax", x, keepdims=0) == 1 and both("ArgMax", x, select_last_index=1, keepdims=0) == 2
    assert both("ArgMin", x, keepdims=0) == 3 and both("ArgMin", x, select_last_index=1, keepdims=0) == 4
    assert both("ArgMax", SPECIAL, keepdims=0) == 0


def test_topk_ties_take_the_lower_index() -> None:
    x = np.array([[2, 5, 5, 1, 5]], np.uint8)
    values, indices = _topk(x, 3)
    same(values, [[5, 5, 5]])
    same(indices, [[1, 2, 4]])
    values, indices = _topk(x, 2, largest=0)
    same(values, [[1, 2]])
    same(indices, [[3, 0]])


def _topk(x: np.ndarray, k: int, **attrs: int) -> tuple[np.ndarray, ...]:
    node = ops.make_node("TopK", [constant(x.copy()), ints(k)], attrs)
    return ops.evaluate(node, [x, np.array([k])])


def test_scans_exclusive_and_reversed() -> None:
    x = np.array([1, 2, 3], np.int32)
    same(both("CumSum", x, ints(0), exclusive=1), [0, 1, 3])
    same(both("CumSum", x, ints(0), exclusive=1, reverse=1), [5, 3, 0])
    same(both("CumProd", x, ints(-1), exclusive=1), [1, 1, 2])
    assert both("CumSum", np.zeros((0,), np.float32), ints(0), exclusive=1).shape == (0,)


def test_casts_wrap_integers_and_take_nan_for_true() -> None:
    same(both("Cast", np.array([200, -1], np.int16), to=dtypes.int8.onnx), [-56, -1])
    same(both("Cast", SPECIAL[:5], to=dtypes.bool_.onnx), [1, 1, 1, 0, 0])
    assert np.isinf(both("Cast", np.array([1e6], np.float32), to=dtypes.float16.onnx))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 33])
def test_erf_matches_the_c_library(size: int) -> None:
    x = np.linspace(-4, 4, size).astype(np.float32)
    np.testing.assert_allclose(both("Erf", x), [math.erf(v) for v in x], rtol=1e-7)
