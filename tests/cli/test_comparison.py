"""The comparer, held to errors planted one at a time."""

import ml_dtypes
import numpy as np
import pytest

from redline.base import dtypes
from redline.cli.comparison import Verdict, compare, compare_arrays, worse
from redline.cli.tolerance import TABLE

FLOATS = [dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64]
INTEGERS = [d for d in dtypes.ALL if d.is_integer]


def normal(shape: tuple[int, ...] = (3, 1000), dtype: type | np.dtype = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def planted(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    wrong = array.copy()
    wrong[index] = value
    return wrong


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=repr)
def test_an_array_equals_itself(dtype):
    array = normal().astype(dtype.numpy)
    assert compare_arrays("y", array, array.copy()).passed


def test_every_dtype_has_a_tolerance_with_a_reason():
    assert set(TABLE) == set(dtypes.ALL)
    assert all(row.reason for row in TABLE.values())


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_one_wrong_element_among_a_million_is_seen(dtype):
    expected = normal((1000, 1000), dtype.numpy)
    wrong = planted(expected, (7, 31), float(expected[7, 31]) + 1)
    verdict = compare_arrays("y", expected, wrong)
    assert not verdict.passed
    assert verdict.worst_index == (7, 31)
    assert verdict.max_abs == pytest.approx(1, rel=1e-2)


def test_an_error_too_small_for_the_norm_is_seen_in_its_element():
    expected = normal((1000, 1000))
    verdict = compare_arrays("y", expected, planted(expected, (7, 31), float(expected[7, 31]) + 0.05))
    assert verdict.relative_l2 < TABLE[dtypes.float32].relative_l2
    assert verdict.difference.startswith("an error of 0.05 in one element")


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_an_error_everywhere_is_seen_and_rounding_is_not(dtype):
    expected = normal(dtype=dtype.numpy)
    unit = float(ml_dtypes.finfo(dtype.numpy).eps)
    assert compare_arrays("y", expected, expected * dtype.numpy.type(1 + unit)).passed
    verdict = compare_arrays("y", expected, expected * dtype.numpy.type(1.0625))
    assert not verdict.passed
    assert "relative L2 error 6." in verdict.difference


@pytest.mark.parametrize("values", [(np.nan, 0.0), (0.0, np.nan), (np.inf, 1e30), (np.inf, -np.inf), (np.nan, np.inf)])
def test_nan_and_infinity_on_one_side_fail(values):
    expected, actual = (planted(normal(), (1, 5), value) for value in values)
    verdict = compare_arrays("y", expected, actual)
    assert verdict.worst_index == (1, 5)
    assert verdict.difference == "NaN or infinity on one side only"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_on_both_sides_pass_and_do_not_hide_others(value):
    expected = planted(normal(), (0, 0), value)
    assert compare_arrays("y", expected, expected.copy()).passed
    wrong = planted(expected, (2, 2), 9.0)
    assert compare_arrays("y", expected, wrong).worst_index == (2, 2)


def test_minus_zero_is_zero():
    assert compare_arrays("y", np.float32([0.0]), np.float32([-0.0])).passed


def test_zeros_are_held_to_the_absolute_error():
    zeros = np.zeros((4, 4), np.float32)
    assert compare_arrays("y", zeros, zeros + np.float32(1e-6)).passed
    assert not compare_arrays("y", zeros, zeros + np.float32(1)).passed


@pytest.mark.parametrize("dtype", INTEGERS, ids=repr)
def test_integers_one_off(dtype):
    expected = np.arange(40, 80).astype(dtype.numpy)
    one, two = (planted(expected, (3,), 43 + step) for step in (1, 2))
    assert compare_arrays("y", expected, one).passed == (dtype in (dtypes.int8, dtypes.uint8))
    assert not compare_arrays("y", expected, two).passed


def test_neighbouring_large_integers_differ():
    assert not compare_arrays("y", np.int64([2**62]), np.int64([2**62 + 1])).passed


def test_a_flipped_truth_value_fails():
    assert not compare_arrays("y", np.array([True, False]), np.array([True, True])).passed


@pytest.mark.parametrize(
    ("actual", "difference"),
    [
        (np.zeros((2, 3), np.float64), "dtype float64, expected float32"),
        (np.zeros((3, 2), np.float32), "shape 3x2, expected 2x3"),
        (np.zeros(6, np.float32), "shape 6, expected 2x3"),
    ],
)
def test_other_types_fail(actual, difference):
    assert compare_arrays("y", np.zeros((2, 3), np.float32), actual).difference == difference


def test_empty_and_scalar_outputs():
    assert compare_arrays("y", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).passed
    assert not compare_arrays("y", np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32)).passed
    assert compare_arrays("y", np.float32(2), np.float32(2)).worst_index == ()
    assert not compare_arrays("y", np.float32(2), np.float32(3)).passed


def test_missing_outputs_fail():
    verdicts = compare({"a": np.ones(1), "b": np.ones(1)}, {"b": np.ones(1), "c": np.ones(1)})
    assert {v.output: v.difference for v in verdicts} == {"a": "the engine lacks it", "b": "", "c": "only the engine has it"}


def test_the_worse_of_two_samples_is_kept():
    good, bad = Verdict("y", relative_l2=0.5), Verdict("y", difference="shape")
    assert worse(good, bad) is bad
    assert worse(Verdict("y"), good) is good
