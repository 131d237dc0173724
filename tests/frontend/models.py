"""Small ONNX models for the tests of the front end."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from redline import ops
from redline.frontend import load

Dims = Sequence[int | str | None] | None


def tensor(name: str, shape: Dims, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str], *,
    initializers: Mapping[str, np.ndarray] | None = None, opset: int = 21, functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:  # fmt: skip
    """A model whose outputs are left untyped, as the front end infers them."""
    constants = [numpy_helper.from_array(array, name) for name, array in (initializers or {}).items()]
    values = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(list(nodes), "test", list(inputs), values, constants)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


def results(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], **options: Any) -> list[np.ndarray]:
    """The model's outputs by the front end and the interpreter."""
    outputs = ops.run(load(proto, **options), feeds)
    return [outputs[item.name] for item in proto.graph.output]


def witness(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The model's outputs by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def agree(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Asserts that both give the same."""
    for seen, wanted in zip(results(proto, feeds), witness(proto, feeds), strict=True):
        assert seen.dtype == wanted.dtype
        np.testing.assert_allclose(seen, wanted, rtol=rtol, atol=atol)
