"""Damaged models: whatever the bytes, the answer is a graph or an error that a user can read."""

import random
from contextlib import suppress

import numpy as np
import onnx
import pytest
from onnx import helper

from redline.base.errors import RedlineError
from redline.frontend import load
from tests.frontend.models import model, tensor

NODE = helper.make_node
NETWORK = model(
    [
        NODE("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        NODE("Relu", ["c"], ["r"]),
        NODE("Shape", ["r"], ["s"], start=0, end=1),
        NODE("Concat", ["s", "m"], ["t"], axis=0),
        NODE("Reshape", ["r", "t"], ["f"]),
        NODE("Gemm", ["f", "g"], ["l"], transB=1),
        NODE("Softmax", ["l"], ["y"], axis=-1),
    ],
    [tensor("x", [1, 2, 6, 6])], ["y"],
    initializers={
        "w": np.ones((4, 2, 3, 3), np.float32), "b": np.zeros(4, np.float32), "m": np.array([-1]),
        "g": np.ones((5, 36), np.float32),
    },
)  # fmt: skip
BYTES = NETWORK.SerializeToString()
HUGE = (0, -1, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)


def _survives(content: bytes | onnx.ModelProto) -> None:
    with suppress(RedlineError):
        load(content)


def test_the_whole_model_loads() -> None:
    assert load(BYTES).outputs[0][1].shape == (1, 5)


def test_every_beginning_of_a_model() -> None:
    for length in range(len(BYTES)):
        _survives(BYTES[:length])


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(1000):
        content = bytearray(BYTES)
        for _ in range(rng.choice((1, 1, 2, 8))):
            content[rng.randrange(len(content))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        _survives(bytes(content))


def test_absurd_numbers() -> None:
    """Every attribute, extent and shape constant in turn made absurd: refused without allocating what it asks for."""
    for value in HUGE:
        for i, node in enumerate(NETWORK.graph.node):
            for j, attribute in enumerate(node.attribute):
                proto = onnx.ModelProto()
                proto.CopyFrom(NETWORK)
                target = proto.graph.node[i].attribute[j]
                if attribute.ints:
                    target.ints[0] = value
                else:
                    target.i = value
                _survives(proto)
        for k in range(4):
            proto = onnx.ModelProto()
            proto.CopyFrom(NETWORK)
            proto.graph.input[0].type.tensor_type.shape.dim[k].dim_value = value
            _survives(proto)
        for k in range(len(NETWORK.graph.initializer)):
            proto = onnx.ModelProto()
            proto.CopyFrom(NETWORK)
            proto.graph.initializer[k].dims[0] = value
            with pytest.raises(RedlineError):
                load(proto)
        proto = onnx.ModelProto()
        proto.CopyFrom(NETWORK)
        proto.graph.initializer[2].raw_data = np.array([value]).tobytes()
        _survives(proto)
