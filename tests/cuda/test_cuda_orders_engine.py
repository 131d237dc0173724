"""Models whose results depend on the order of elements, from ONNX through the file to answers, without a GPU."""

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_driver import FakeDriver, as_cubins
from onnx import TensorProto, helper

import redline.tune.cuda as tuning
from redline.builder import cuda as builder
from redline.engine import open_engine
from redline.kernels.gpu import GpuTarget
from redline.runtime.cuda.engine import CudaEngine
from redline.runtime.cuda.loaded import CudaLoaded


def model() -> bytes:
    """The largest five of a running sum, their places, and rows of data replaced by others."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["sums"]),
        helper.make_node("TopK", ["sums", "five"], ["top", "places"], axis=1),
        helper.make_node("ScatterND", ["x", "rows", "updates"], ["changed"]),
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [], [1]),
        helper.make_tensor("five", TensorProto.INT64, [1], [5]),
    ]
    graph = helper.make_graph(
        nodes, "orders",
        [value("x", TensorProto.FLOAT, [4, 30]), value("rows", TensorProto.INT64, [2, 1]), value("updates", 1, [2, 30])],
        [value("top", 1, [4, 5]), value("places", TensorProto.INT64, [4, 5]), value("changed", 1, [4, 30])], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_orders_from_the_builder_to_answers(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "compile_cubins", as_cubins)
    monkeypatch.setattr(builder, "_target", lambda arch, machine, precision: GpuTarget(arch, plain=True, tf32=False))
    onnx.checker.check_model(onnx.load_from_string(model()))
    path = builder.build_cuda(model(), output=tmp_path / "o.engine", precision="fp32", target="cuda:sm_90", opt_level=0)
    rng = np.random.default_rng(0)
    feed = {
        "x": rng.standard_normal((4, 30)).astype(np.float32), "rows": np.array([[3], [1]]),
        "updates": rng.standard_normal((2, 30)).astype(np.float32),
    }  # fmt: skip
    expected = onnxruntime.InferenceSession(model(), providers=["CPUExecutionProvider"]).run(None, feed)
    with CudaEngine(CudaLoaded(open_engine(path), 0, FakeDriver())) as engine:
        families = {kernel.family for kernel in engine.header.kernels}
        assert {"scan", "sort", "scatter"} <= families
        for found, wanted in zip(engine.run(feed).values(), expected, strict=True):
            assert np.allclose(found, wanted, rtol=1e-5, atol=1e-6)
