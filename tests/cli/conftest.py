"""Small ONNX models, written where a test asks for them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redline.engine import IO, Access, Header, KernelRecord, Stamp, TensorPlan, write_engine


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
def picture(tmp_path):
    """y = Relu(image[batch, 1, 8, 8])."""
    shape = ["batch", 1, 8, 8]
    nodes = [helper.make_node("Relu", ["image"], ["y"], name="relu")]
    return _save(tmp_path / "picture.onnx", nodes, [_tensor("image", shape)], [_tensor("y", shape)])


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


KERNELS = (
    KernelRecord(
        "rl_matmul_1", "matmul", ("dense", "bias"), 2, False,
        (Access("input", 0, 0, "float32", (2, 4), (4, 1)), Access("weights", 1, 0, "float32", (4, 3), (3, 1))),
        (Access("arena", 0, 0, "float32", (2, 3), (3, 1)),), 48, 104, "Tile(2, 3)", 2e-6, "matmul anchors a group",
    ),
    KernelRecord(
        "rl_nest_2", "nest", ("relu",), 1, True, (Access("arena", 0, 0, "float32", (2, 3), (3, 1)),),
        (Access("output", 0, 0, "float32", (2, 3), (3, 1)),), 6, 48, "Loop()", None,
    ),
)  # fmt: skip


@pytest.fixture
def header():
    """What the perceptron's engine could say about itself; its code does not exist."""
    return Header(
        Stamp("avx512", ("avx512f",), "0.1.0", "zig 0.17"),
        (IO("x", "float32", (2, 4)),), (IO("y", "float32", (2, 3)),),
        (TensorPlan("t1", "arena", 0, 64, 0, 1), TensorPlan("w0", "weights", 0, 48, 0, 1)), KERNELS, 64, 128, 2,
        {"model": "small", "nodes": 3},
    )  # fmt: skip


@pytest.fixture
def engine_file(tmp_path, header):
    write_engine(tmp_path / "small.engine", header, {"code": [b"\x7fELF"], "weights": [bytes(48)]})
    return tmp_path / "small.engine"


class FakeEngine:
    """Answers like the perceptron, with ``error`` added to the element [1, 2]."""

    def __init__(self, header, weights, error=0.0):
        self.header, self.weights, self.error, self.calls = header, weights, error, []
        self.num_threads, self.path = 2, "small.engine"

    def run(self, inputs, out=None):
        self.calls.append(inputs)
        y = np.maximum(inputs["x"] @ self.weights["w"] + self.weights["b"], 0)
        y[1, 2] += self.error
        return {"y": y}

    def header_at(self, inputs):
        return self.header

    def profile(self, inputs, repeats=10):
        return np.tile([3e-6, 1e-6], (repeats, 1))


@pytest.fixture
def fake_engine(header, perceptron):
    """``fake_engine(error)``: the perceptron as an engine without a file."""
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(perceptron).graph.initializer}
    return lambda error=0.0: FakeEngine(header, weights, error)
