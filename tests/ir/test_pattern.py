import ml_dtypes
import numpy as np
import pytest

from redline.base import dtypes
from redline.ir import Any_, Const, Node, Pat, TensorType, constant, input_node, match

TYPE = TensorType(dtypes.float32, (2,))
X, Y = (input_node(name, TYPE).out for name in "xy")


def op(name, *inputs, outputs=1):
    return Node(name, inputs, (TYPE,) * outputs, name=name).out


def const(value, dtype=np.float32):
    return constant(np.array(value, dtype))


def test_names_bind_and_repeat():
    square = Pat("Mul", Any_("x"), Any_("x"), name="square")
    found = op("Mul", X, X)
    assert match(square, found) == {"x": X, "square": found}
    assert match(square, op("Mul", X, Y)) is None


def test_any_order_tries_both_and_backtracks():
    swish = Pat("Mul", Any_("x"), Pat("Sigmoid", Any_("x")), any_order=True)
    assert match(swish, op("Mul", X, op("Sigmoid", X))) == {"x": X}
    assert match(swish, op("Mul", op("Sigmoid", X), X)) == {"x": X}
    assert match(swish, op("Mul", op("Sigmoid", X), Y)) is None
    inner = op("Sigmoid", X)
    assert match(swish, op("Mul", op("Sigmoid", inner), inner)) == {"x": inner}


def test_order_counts_without_any_order():
    pattern = Pat("Sub", Any_("x"), Const(1.0))
    assert match(pattern, op("Sub", X, const(1))) == {"x": X}
    assert match(pattern, op("Sub", const(1), X)) is None


def test_one_of_several_operators_and_leading_inputs():
    pattern = Pat(("Conv", "MatMul"), Any_("x"))
    assert match(pattern, op("Conv", X, Y)) and match(pattern, op("MatMul", X))
    assert match(pattern, op("Add", X)) is None
    assert match(Pat("Conv", Any_("x"), Any_("w")), op("Conv", X)) is None


def test_absent_inputs_and_later_outputs_do_not_match():
    assert match(Pat("Clip", Any_("x"), Any_("low")), op("Clip", X, None)) is None
    split = Node("Split", (X,), (TYPE, TYPE)).outputs()
    assert match(Pat("Split"), split[0]) == {} and match(Pat("Split"), split[1]) is None


@pytest.mark.parametrize(
    "array, value, fits",
    [
        (const(0.5), 0.5, True),
        (const([0.5, 0.5]), 0.5, True),
        (const([0.5, 0.6]), 0.5, False),
        (const(0.5001), 0.5, False),
        (const(0.70710678), 2**-0.5, True),
        (const(0.044715, np.float16), 0.044715, True),
        (const(0.044715, ml_dtypes.bfloat16), 0.044715, True),
        (const(0.0447, np.float32), 0.044715, False),
        (const([]), 0.5, False),
        (const(np.nan), 0.5, False),
        (const(np.inf), 0.5, False),
        (const(1e-30), 0.0, False),
        (const(0), 0.0, True),
        (const(2, np.int64), 2, True),
        (const(True, bool), 1, True),
        (const(3, np.int64), None, True),
        (X, 0.5, False),
    ],
)
def test_constants(array, value, fits):
    assert (match(Const(value), array) is not None) is fits


def test_a_constant_is_bound():
    assert match(Const(name="c"), half := const(0.5)) == {"c": half}
