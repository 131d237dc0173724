"""Small models for the tests of quantization."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, tuple[int, ...]], outputs: Sequence[str],
    constants: Mapping[str, np.ndarray], input_type: int = TensorProto.FLOAT, output_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:  # fmt: skip
    graph = helper.make_graph(
        list(nodes), "small", [helper.make_tensor_value_info(n, input_type, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, output_type, None) for n in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def two_convolutions(seed: int = 0) -> onnx.ModelProto:
    """x [1, 8, 12, 12] -> Conv, Relu, depthwise Conv, Relu, Add, global mean, Gemm -> logits [1, 5]."""
    rng = np.random.default_rng(seed)
    constants = {
        "w1": rng.standard_normal((16, 8, 3, 3), np.float32) / 8, "b1": rng.standard_normal(16, np.float32) / 4,
        "w2": rng.standard_normal((16, 1, 3, 3), np.float32) / 3, "w3": rng.standard_normal((16, 16, 1, 1), np.float32) / 4,
        "w4": rng.standard_normal((5, 16), np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=16),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "pointwise"),
        helper.make_node("Add", ["c3", "r1"], ["s"], "sum"),
        helper.make_node("Relu", ["s"], ["r3"], "relu3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["m"], "mean"),
        helper.make_node("Flatten", ["m"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4"], ["logits"], "head", transB=1),
    ]
    return model(nodes, {"x": (1, 8, 12, 12)}, ["logits"], constants)


def samples(count: int = 24, seed: int = 1) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((1, 8, 12, 12), np.float32)} for _ in range(count)]
