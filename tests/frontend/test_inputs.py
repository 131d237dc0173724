"""Inputs: symbols, the shapes that the caller fixes, frozen inputs, and what is said when they do not fit."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from redline.base.errors import RedlineError
from redline.base.shapes import Sym
from redline.frontend import load
from tests.frontend.models import model, results, tensor

ADD = model([helper.make_node("Add", ["x", "y"], ["z"])], [tensor("x", ["n", 4]), tensor("y", ["n", 4])], ["z"])


def test_open_dimensions_stay_symbols() -> None:
    graph = load(ADD)
    assert [node.types[0].shape for node in graph.inputs] == [(Sym("n"), 4)] * 2
    assert graph.outputs[0][1].shape == (Sym("n"), 4)


def test_a_symbol_fixed_by_one_input_holds_for_the_others() -> None:
    graph = load(ADD, shapes={"x": (3, 4)})
    assert [node.types[0].shape for node in graph.inputs] == [(3, 4)] * 2


def test_inputs_that_share_a_symbol_must_agree() -> None:
    with pytest.raises(RedlineError) as error:
        load(ADD, shapes={"x": (3, 4), "y": (2, 4)})
    assert str(error.value) == (
        "[--shapes] dimension 'n' is 3 by input 'x' but 2 by input 'y'; inputs that share a dimension must agree; "
        "change one of the two shapes"
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 5), "[--shapes] input 'x' is nx4 in the model, given 3x5; allowed: extent 4 in axis 1"),
        ((3,), "[--shapes] input 'x' is nx4 in the model, given 3; allowed: rank 2"),
    ],
)
def test_a_shape_must_fit_the_model(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(RedlineError) as error:
        load(ADD, shapes={"x": shape})
    assert str(error.value) == message


def test_an_unknown_name_offers_the_closest() -> None:
    with pytest.raises(RedlineError, match=r"\[--shapes\] there is no input 'xx'; did you mean 'x'\?"):
        load(ADD, shapes={"xx": (3, 4)})
    with pytest.raises(RedlineError, match=r"\[--freeze\] there is no input 'q'"):
        load(ADD, freeze={"q": np.zeros(1)})


def test_freeze_makes_a_constant_and_binds_symbols() -> None:
    graph = load(ADD, freeze={"y": np.ones((2, 4), np.float32)})
    assert [node.name for node in graph.inputs] == ["x"]
    assert graph.inputs[0].types[0].shape == (2, 4)
    with pytest.raises(RedlineError, match="input 'y' is float32 in the model, the array is float64; convert the array"):
        load(ADD, freeze={"y": np.ones((2, 4))})


def test_a_frozen_number_fills_an_input_of_fixed_shape() -> None:
    wide, scalar = tensor("x", [2, 3]), helper.make_tensor_value_info("n", TensorProto.INT64, [])
    nodes = [helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "f"], ["y"])]
    given = model(nodes, [wide, scalar], ["y"])
    assert [node.name for node in load(given, freeze={"n": 3}).inputs] == ["x"]
    assert [node.name for node in load(given, freeze={"x": 0.5}).inputs] == ["n"]
    for number in (1.5, float("inf"), 2**80):
        with pytest.raises(RedlineError, match=r"\[--freeze\] input 'n' is int64, which cannot hold "):
            load(given, freeze={"n": number})
    with pytest.raises(
        RedlineError, match=r"input 'y' has open dimensions; a number is for an input whose shape is fixed; give"
    ):
        load(ADD, freeze={"y": 1})


def test_a_dimension_without_a_name_is_like_no_other() -> None:
    """Some exporters call every dimension that they do not know by one sign."""
    relu = model([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", ["?", 3, "?"])], ["y"])
    assert load(relu, shapes={"x": (2, 3, 5)}).inputs[0].types[0].shape == (2, 3, 5)


def test_a_caller_keeps_a_writable_array_after_freezing() -> None:
    array = np.ones((2, 4), np.float32)
    load(ADD, freeze={"y": array})
    array[0, 0] = 2


def test_unnamed_dimensions_are_symbols_of_their_own() -> None:
    graph = load(model([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", [None, 3])], ["y"]))
    assert graph.inputs[0].types[0].shape == (Sym("x.0"), 3)


def test_an_input_of_unknown_rank_needs_a_shape() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", None)], ["y"])
    with pytest.raises(RedlineError, match="the model does not say the rank of this input; fix its shape with --shapes"):
        load(proto)
    assert load(proto, shapes={"x": (2, 3)}).outputs[0][1].shape == (2, 3)


def test_text_inputs_are_refused() -> None:
    proto = model([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", [1], TensorProto.STRING)], ["y"])
    with pytest.raises(RedlineError, match="element type STRING is not supported; allowed: float32"):
        load(proto)


def test_an_initializer_named_as_an_input_is_a_constant() -> None:
    proto = model(
        [helper.make_node("Add", ["x", "w"], ["y"])], [tensor("x", [2]), tensor("w", [2])], ["y"],
        initializers={"w": np.array([1, 2], np.float32)},
    )  # fmt: skip
    assert [node.name for node in load(proto).inputs] == ["x"]
    assert results(proto, {"x": np.zeros(2, np.float32)})[0].tolist() == [1, 2]


def test_outputs_may_be_inputs_and_constants() -> None:
    proto = model([], [tensor("x", [2])], ["x", "w"], initializers={"w": np.array([3], np.int64)})
    x = np.array([1, 2], np.float32)
    seen = results(proto, {"x": x})
    assert seen[0].tolist() == [1, 2] and seen[1].tolist() == [3]
