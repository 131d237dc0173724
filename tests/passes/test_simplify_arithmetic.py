import numpy as np
import pytest

from redline.ops import make
from redline.passes import simplify_arithmetic
from tests.passes.checking import arg, check, const, constants, names, only, unchanged

run = simplify_arithmetic.run
X = arg()


@pytest.mark.parametrize("op, neutral", [("Add", 0), ("Sub", 0), ("Mul", 1), ("Div", 1), ("Pow", 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_neutral_constants_go(op, neutral, dtype):
    x = arg(dtype=dtype)
    assert names(check(run, make(op, x, const([neutral], dtype)))) == []
    wider = make(op, x, const(np.full((2, 1, 1), neutral), dtype))
    assert len(names(check(run, wider))) == 1


@pytest.mark.parametrize("op", ["And", "Or"])
def test_logic_with_what_decides_nothing_goes(op):
    x = arg((5,), "bool")
    assert names(check(run, make(op, const(op == "And", "bool"), x))) == []
    wider = make(op, x, const(np.full((3, 1), op == "And"), "bool"))
    assert names(check(run, wider)) == ["Expand"]
    unchanged(run, make(op, x, const(op == "Or", "bool")))


def test_constants_that_are_not_neutral_stay():
    assert names(check(run, make("Add", X, const(1e-30)))) == ["Add"]
    assert names(check(run, make("Mul", X, const(0.0)))) == ["Mul"]
    assert names(check(run, make("Sub", const(0.0), X))) == ["Sub"]
    assert names(check(run, make("Mul", X, const([1.0] * 16 + [2.0])))) == ["Mul"]


def test_constants_stand_on_the_right():
    graph = check(run, make("Mul", const(2.0), make("Add", const(3.0), X)))
    assert all(node.inputs[1].op == "Constant" for node in graph.operations)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_subtraction_of_a_constant_is_addition(dtype):
    assert names(check(run, make("Sub", arg(dtype=dtype), const(3, dtype)))) == ["Add"]


@pytest.mark.parametrize("divisor", [3.0, 8.0, -7.3, 1e30, [1.5] * 17])
def test_division_by_a_constant_is_multiplication(divisor):
    assert names(check(run, make("Div", X, const(divisor)), ulps=1)) == ["Mul"]


def test_division_by_a_power_of_two_is_exact():
    for dtype in ("float16", "bfloat16", "float64"):
        assert names(check(run, make("Div", arg(dtype=dtype), const(-16.0, dtype)))) == ["Mul"]


@pytest.mark.parametrize("divisor", [0.0, np.inf, np.nan, 1e-40, 3e38, [2.0] * 16 + [0.0]])
def test_divisions_that_stay(divisor):
    assert names(check(run, make("Div", X, const(divisor)))) == ["Div"]


def test_inexact_half_precision_and_integer_divisions_stay():
    assert names(check(run, make("Div", arg(dtype="float16"), const(3.0, "float16")))) == ["Div"]
    assert names(check(run, make("Div", arg(dtype="int32"), const(2, "int32")))) == ["Div"]


def test_double_negation():
    b = arg(dtype="bool", name="b")
    assert names(check(run, make("Neg", make("Neg", X)), make("Not", make("Not", b)))) == []
    assert names(check(run, make("Abs", make("Abs", X)), make("Round", make("Round", X)))) == ["Abs", "Round"]
    assert names(check(run, make("Neg", make("Abs", X)))) == ["Abs", "Neg"]


def test_powers():
    assert names(check(run, make("Pow", X, const(2.0)))) == ["Mul"]
    assert names(check(run, make("Pow", X, const(3, "int64")), ulps=2)) == ["Mul", "Mul"]
    assert names(check(run, make("Pow", X, const(-1.0)))) == ["Reciprocal"]
    assert names(check(run, make("Pow", arg(dtype="int32"), const(2, "int32")))) == ["Mul"]
    unchanged(run, make("Pow", X, const(2.5)))
    unchanged(run, make("Pow", X, const([2.0] * 16 + [3.0])))
    unchanged(run, make("Pow", X, const(np.full((2, 1, 1), 2.0))))


def test_roots_need_what_is_never_negative():
    assert names(check(run, make("Pow", make("Abs", X), const(0.5)), ulps=1)) == ["Abs", "Sqrt"]
    variance = make("Add", make("ReduceMean", make("Mul", X, X), keepdims=1), const(1e-5))
    assert "Reciprocal" in names(check(run, make("Pow", variance, const(-0.5)), ulps=2))
    unchanged(run, make("Pow", X, const(0.5)))
    unchanged(run, make("Pow", make("Add", make("Abs", X), const(-1.0)), const(0.5)))


def test_reciprocals():
    assert names(check(run, make("Div", const(1.0), X))) == ["Reciprocal"]
    assert names(check(run, make("Div", const(1, "int32"), arg(dtype="int32")))) == ["Div"]
    y = arg(name="y")
    assert names(check(run, make("Mul", make("Reciprocal", X), y), ulps=2, boundary=(0.5, 3, np.nan, 7))) == ["Div"]
    row = make("Reciprocal", arg((3, 1), name="row"))
    assert names(check(run, make("Mul", y, row))) == ["Mul", "Reciprocal"]
    shared = make("Reciprocal", X)
    assert names(check(run, make("Mul", shared, y), make("Neg", shared))) == ["Mul", "Neg", "Reciprocal"]


def test_adding_a_negative_is_subtraction():
    y = arg(name="y")
    assert names(check(run, make("Add", X, make("Neg", y)))) == ["Sub"]
    assert names(check(run, make("Add", make("Neg", X), y))) == ["Sub"]


def test_where_that_is_decided():
    y, c = arg(name="y"), arg(dtype="bool", name="c")
    assert names(check(run, make("Where", const(True, "bool"), X, y))) == []
    assert only_input(check(run, make("Where", const([False], "bool"), X, y))) == "y"
    assert names(check(run, make("Where", c, X, X))) == []
    swapped = check(run, make("Where", make("Not", c), X, y))
    assert only(swapped, "Where").inputs == (c, y, X)
    unchanged(run, make("Where", const([True] * 16 + [False], "bool"), X, y))
    unchanged(run, make("Where", const(np.full((2, 1, 1), True), "bool"), X, y))


def only_input(graph):
    return graph.outputs[0][1].node.name


def test_clips():
    assert names(check(run, make("Clip", X, const(0.0)))) == ["Relu"]
    assert names(check(run, make("Clip", X, const(0.0), const(np.inf)))) == ["Relu"]
    assert names(check(run, make("Clip", X))) == []
    assert names(check(run, make("Clip", X, const(-np.inf), const(6.0)))) == ["Clip"]
    unchanged(run, make("Clip", X, const(0.0), const(6.0)))
    unchanged(run, make("Clip", arg(dtype="int32"), const(0, "int32")))


def test_clips_merge_where_their_bounds_are_in_order():
    relu6 = check(run, make("Min", make("Relu", X), const(6.0)))
    assert names(relu6) == ["Clip"] and [float(a) for a in constants(relu6)] == [0, 6]
    assert names(check(run, make("Relu", make("Clip", X, const(-1.0), const(1.0))))) == ["Clip"]
    assert names(check(run, make("Clip", make("Clip", X, const(0.0), const(1.0)), const(2.0), const(3.0)))) == ["Clip", "Clip"]
    assert names(check(run, make("Clip", make("Clip", X, const(2.0), const(1.0)), const(0.0), const(3.0)))) == ["Clip", "Clip"]


def test_maximum_and_minimum_with_a_constant():
    assert names(check(run, make("Max", X, const([0.0])))) == ["Relu"]
    assert names(check(run, make("Max", const(0.5), X))) == ["Clip"]
    unchanged(run, make("Max", X, const([0.0] * 16 + [1.0])))
    unchanged(run, make("Min", X, const(np.nan)))
    unchanged(run, make("Max", X, const(np.zeros((2, 1, 1)))))
