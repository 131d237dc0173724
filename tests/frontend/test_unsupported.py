"""What cannot be built: all of it at once, counted, each with its reason and what to do."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from redline.base.errors import UnsupportedError
from redline.frontend import Unsupported, load, unsupported
from tests.frontend.models import model, tensor

NODE = helper.make_node
MIXED = model(
    [
        NODE("RandomNormalLike", ["x"], ["a"], name="noise"), NODE("RandomNormalLike", ["a"], ["b"]),
        NODE("Relu", ["b"], ["c"]),
        NODE("Magic", ["c"], ["d"], domain="com.example"), NODE("Reshape", ["x", "s"], ["e"]), NODE("Exp", ["x"], ["f"]),
    ],
    [tensor("x", [2, 3]), tensor("s", [1], TensorProto.INT64)], ["d", "e", "f"], domains=["com.example"],
)  # fmt: skip


def test_every_node_that_cannot_be_built_is_listed_with_its_own_reason() -> None:
    found = unsupported(MIXED)
    assert [(item.node, item.op, item.domain) for item in found] == [
        ("noise", "RandomNormalLike", ""), ("RandomNormalLike_1", "RandomNormalLike", ""), ("Magic_3", "Magic", "com.example"),
        ("Reshape_4", "Reshape", ""),
    ]  # fmt: skip
    assert found[0] == Unsupported(
        "noise", "RandomNormalLike", "",
        "RandomNormalLike is refused: an engine gives the same answer to the same input",
        "make the random tensor an input of the model",
    )  # fmt: skip
    assert all(item.reason and item.remedy for item in found)


def test_one_error_tells_them_all() -> None:
    with pytest.raises(UnsupportedError) as error:
        load(MIXED)
    assert (
        str(error.value)
        == """\
[model] 4 nodes cannot be built:
  2 x RandomNormalLike (noise, RandomNormalLike_1): RandomNormalLike is refused: an engine gives the same answer to the same \
input; make the random tensor an input of the model
  1 x com.example.Magic (Magic_3): operators of the domain 'com.example' are not supported; export with standard operators, or \
give the model a local function of this name
  1 x Reshape (Reshape_4): input 1 of Reshape is computed at run time; it must be known at build time; make it a constant of \
the model, or bind it with --freeze NAME=FILE.npy"""
    )


def test_what_is_bound_is_no_longer_a_problem() -> None:
    proto = model([NODE("Reshape", ["x", "s"], ["y"])], [tensor("x", [2, 3]), tensor("s", [1], TensorProto.INT64)], ["y"])
    assert len(unsupported(proto)) == 1
    assert load(proto, freeze={"s": np.array([6])}).outputs[0][1].shape == (6,)


def test_an_unknown_operator_offers_the_closest() -> None:
    proto = model([NODE("Relue", ["x"], ["y"])], [tensor("x", [2])], ["y"])
    assert unsupported(proto)[0].reason == "operator Relue is not supported; did you mean 'Relu'?"


def test_weights_of_unknown_types_are_listed() -> None:
    proto = model([NODE("Add", ["x", "w"], ["y"])], [tensor("x", [2])], ["y"])
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, (2,), [b"a", b"b"]))
    (found,) = unsupported(proto)
    assert (found.node, found.op) == ("w", "Initializer") and "element type STRING" in found.reason


def test_inputs_of_unknown_kinds_are_listed() -> None:
    proto = model([NODE("Identity", ["x"], ["y"])], [tensor("x", [2], TensorProto.STRING)], ["y"])
    assert unsupported(proto)[0].op == "Input"


def test_a_supported_model_has_no_problems() -> None:
    assert unsupported(model([NODE("Relu", ["x"], ["y"])], [tensor("x", ["n"])], ["y"])) == []
