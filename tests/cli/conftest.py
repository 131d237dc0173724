"""Small ONNX models, written where a test asks for them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def _tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _save(path, nodes, inputs, outputs, weights=None) -> Path:
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="tests", ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture
def perceptron(tmp_path):
    """y[batch, 3] = Relu(x[2, 4] @ w + b)."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3)).astype(np.float32), "b": np.ones(3, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="dense"),
        helper.make_node("Add", ["xw", "b"], ["sum"], name="bias"),
        helper.make_node("Relu", ["sum"], ["y"], name="relu"),
    ]
    return _save(tmp_path / "perceptron.onnx", nodes, [_tensor("x", [2, 4])], [_tensor("y", [2, 3])], weights)


@pytest.fixture
def lookup(tmp_path):
    """Two inputs of open length, ids and a mask: y = table[ids] * mask; and the count of the mask."""
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="embed"),
        helper.make_node("Cast", ["mask"], ["maskf"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Unsqueeze", ["maskf", "last"], ["wide"], name="widen"),
        helper.make_node("Mul", ["rows", "wide"], ["y"], name="apply"),
        helper.make_node("ReduceSum", ["mask", "first"], ["count"], keepdims=0, name="count"),
    ]
    weights = {"table": table, "last": np.array([-1]), "first": np.array([0])}
    inputs = [_tensor("ids", ["length"], TensorProto.INT64), _tensor("mask", ["length"], TensorProto.INT64)]
    outputs = [_tensor("y", ["length", 2]), _tensor("count", [], TensorProto.INT64)]
    return _save(tmp_path / "lookup.onnx", nodes, inputs, outputs, weights)


@pytest.fixture
def unbuildable(tmp_path):
    """Four random nodes, a text node and one that builds."""
    nodes = [helper.make_node("RandomNormalLike", ["x"], [f"r{i}"], name=f"noise{i}") for i in range(4)]
    nodes += [
        helper.make_node("Sum", ["x", "r0", "r1", "r2", "r3"], ["y"], name="sum"),
        helper.make_node("StringNormalizer", ["text"], ["lower"], name="lower", case_change_action="LOWER"),
        helper.make_node("Relu", ["x"], ["z"], name="relu"),
    ]
    words = helper.make_tensor("text", TensorProto.STRING, [1], [b"A"])
    nodes.insert(0, helper.make_node("Constant", [], ["text"], value=words, name="words"))
    outputs = [_tensor("y", [3]), _tensor("lower", ["n"], TensorProto.STRING), _tensor("z", [3])]
    return _save(tmp_path / "unbuildable.onnx", nodes, [_tensor("x", [3])], outputs)
