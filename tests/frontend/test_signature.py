"""Calls that the standard does not allow are refused by name, before a rule or a kernel meets them."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from redline.base.errors import ModelError
from redline.frontend import load
from tests.frontend.models import agree, model, tensor

NODE = helper.make_node


@pytest.mark.parametrize(
    ("node", "kinds", "message"),
    [
        (NODE("Conv", ["x", "y"], ["z"]), ("BOOL", "FLOAT"), r"input 0 of Conv is bool; allowed: .*float"),
        (
            NODE("Add", ["x", "y"], ["z"]),
            ("INT32", "FLOAT"),
            r"inputs 0 and 1 of Add are int32 and float32; they must have one",
        ),
        (NODE("Concat", ["x", "x", "y"], ["z"], axis=0), ("FLOAT", "INT64"), r"inputs 0 and 2 of Concat are float32 and int64"),
        (NODE("Relu", ["x", "y"], ["z"]), ("FLOAT", "FLOAT"), r"Relu with 2 inputs; it takes at most 1"),
        (NODE("Where", ["x", "y", "y"], ["z"]), ("FLOAT", "FLOAT"), r"input 0 of Where is float32; allowed: bool"),
    ],
)
def test_calls_that_do_not_fit(node, kinds, message) -> None:
    inputs = [tensor(name, [2, 2, 2], getattr(TensorProto, kind)) for name, kind in zip("xy", kinds, strict=True)]
    with pytest.raises(ModelError, match=message):
        load(model([node], inputs, ["z"]))


def test_types_that_a_later_version_allows_are_allowed() -> None:
    """Max of integers came with opset 12, and exporters wrote it before."""
    proto = model([NODE("Max", ["x", "y"], ["z"])], [tensor(n, [3], TensorProto.INT32) for n in "xy"], ["z"], opset=11)
    assert load(proto).outputs[0][1].dtype.name == "int32"


def test_inputs_of_mixed_types_where_the_standard_mixes_them() -> None:
    proto = model([NODE("Pow", ["x", "y"], ["z"])], [tensor("x", [3]), tensor("y", [3], TensorProto.INT64)], ["z"])
    agree(proto, {"x": np.array([1, 2, 3], np.float32), "y": np.array([2, 0, 3])})
