"""Floats of 8 bits: what Redline quantizes itself, and models that hold QuantizeLinear and DequantizeLinear of them."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

import redline
from redline import frontend, ops, passes
from redline.base import dtypes
from redline.base.errors import BuildError, UnsupportedError
from redline.ir import Graph
from redline.kernels.gpu import GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.lower import lower, scalars
from redline.quant import FP8, INT8, Tensor, insert, recipe_of
from tests.lower import machine
from tests.quant import models

F8 = ml_dtypes.float8_e4m3fn


def peaks(graph: Graph, feeds: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """The ranges of what the recipe stores, by the interpreter."""
    recipe = recipe_of(graph)
    probe = Graph(graph.name, graph.inputs, tuple((name, value) for value, name in recipe.tensors.items()))
    found: dict[str, Tensor] = {}
    for feed in feeds:
        for name, array in ops.run(probe, feed).items():
            low, high = float(array.min()), float(array.max())
            before = found.get(name, Tensor(0.0, 0.0))
            found[name] = Tensor(min(low, before.low), max(high, before.high))
    return found


def test_a_network_in_floats_of_8_bits_means_what_its_quantization_says() -> None:
    """Lowered, it gives what the interpreter gives of its QuantizeLinear and DequantizeLinear; both are near the float one."""
    graph = passes.optimize(frontend.load(models.two_convolutions()), signed=True)
    feeds = models.samples(6)
    whole = insert(graph, recipe_of(graph), peaks(graph, feeds), grid=FP8)
    program = scalars.rewrite(lower(passes.use_integers(whole, signed=True), dtypes.float32))
    products = [step for step in program.steps if step.family in ("conv", "depthwise", "matmul")]
    assert {view.dtype for step in products for view in step.reads[:2]} == {dtypes.float8_e4m3fn}
    assert any(step.writes[0].dtype == dtypes.float8_e4m3fn for step in products), "stored in 8 bits between layers"
    for feed in feeds:
        (real,), (said,), (found,) = (
            a.values() for a in (ops.run(graph, feed), ops.run(whole, feed), machine.run(program, feed))
        )
        size = np.linalg.norm(real)
        assert np.linalg.norm(found - said) <= 2e-2 * size  # a sum next to the middle of two float8 may go to the other
        assert np.linalg.norm(said - real) <= 8e-2 * size


def test_layers_may_lie_on_different_grids() -> None:
    """What all readers share lies on the grid of the layer that reads it; a layer on another one gets a form of its own."""
    graph = passes.optimize(frontend.load(models.two_convolutions()), signed=True)
    feeds = models.samples(4)
    tensors = peaks(graph, feeds)
    names = [layer.name for layer in recipe_of(graph).layers]
    for chosen in ({names[0]: FP8}, {names[1]: FP8}, {names[2]: FP8, names[3]: FP8}):
        whole = insert(graph, recipe_of(graph), tensors, grid=INT8, others=chosen)
        program = scalars.rewrite(lower(passes.use_integers(whole, signed=True), dtypes.float32))
        read = [step.reads[0].dtype for step in program.steps if step.family in ("conv", "depthwise", "matmul")]
        assert read.count(dtypes.float8_e4m3fn) == len(chosen) and set(read) == {dtypes.int8, dtypes.float8_e4m3fn}
        (real,), (said,), (found,) = (
            each.values() for each in (ops.run(graph, feeds[0]), ops.run(whole, feeds[0]), machine.run(program, feeds[0]))
        )
        assert np.linalg.norm(found - said) <= 2e-2 * np.linalg.norm(real)
        assert np.linalg.norm(said - real) <= 8e-2 * np.linalg.norm(real)


def test_weights_have_a_scale_a_channel_and_reach_the_end_of_the_grid() -> None:
    array = np.random.default_rng(0).standard_normal((6, 5)) * np.array([1, 1e-3, 1e3, 1, 1])
    whole, scale = FP8.quantized_weights(array, 1)
    assert whole.dtype == F8 and scale.shape == (5,) and scale.dtype == np.float32
    assert (np.abs(whole.astype(np.float32)).max(0) == 448).all()
    np.testing.assert_allclose(whole.astype(np.float32) * scale, array, rtol=2**-4, atol=2**-10 * float(scale.max()))


def quantized_model(point: float = 0.0, saturate: int = 1) -> onnx.ModelProto:
    """x [4, 64] -> Q, DQ -> MatMul by DQ(w) -> y [4, 32], in FLOAT8E4M3FN."""
    rng = np.random.default_rng(0)
    constants = {
        "s": np.array(0.01, np.float32), "z": np.array(point, F8), "sw": rng.random(32, np.float32) / 100 + 0.001,
        "zw": np.zeros(32, F8), "w": rng.standard_normal((64, 32)).astype(F8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q", saturate=saturate),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["dw"], "dqw", axis=1),
        helper.make_node("MatMul", ["d", "dw"], ["y"], "product"),
    ]
    return models.model(nodes, {"x": (4, 64)}, ["y"], constants)


def test_a_model_with_floats_of_8_bits_is_read() -> None:
    loaded = frontend.load(quantized_model())
    graph = passes.optimize(loaded, signed=True)
    assert "MatMulInteger" in [node.op for node in graph.operations]
    program = lower(graph, dtypes.float16)
    (product,) = [step for step in program.steps if step.family == "matmul"]
    assert [view.dtype for view in product.reads[:2]] == [dtypes.float8_e4m3fn] * 2
    feed = {"x": np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)}
    (wanted,), (found,) = ops.run(loaded, feed).values(), machine.run(program, feed).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    for step in program.steps:  # every kernel has a GPU form
        family = GPU_FAMILIES[step.family]
        family.render(step.problem, family.schedules(step.problem, GpuTarget())[0], GpuTarget())


def test_a_zero_point_that_is_not_zero_is_arithmetic() -> None:
    loaded = frontend.load(quantized_model(point=2.0))
    graph = passes.optimize(loaded, signed=True)
    assert "MatMulInteger" not in [node.op for node in graph.operations]
    feed = {"x": np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)}
    (wanted,), (found,) = ops.run(loaded, feed).values(), ops.run(graph, feed).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_must_not_saturate_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="does not saturate; allowed: saturate = 1"):
        frontend.load(quantized_model(saturate=0))


def test_processors_refuse_them(tmp_path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(quantized_model(), path)
    with pytest.raises(BuildError, match=r"values of type float8_e4m3fn; GPUs from sm_89 on .*--target cuda:sm_90"):
        redline.build(path)
    nodes = quantized_model().graph.node[:2]  # which end within one loop, where no float8 is in memory
    constants = {"s": np.array(0.01, np.float32), "z": np.array(0, F8)}
    with pytest.raises(BuildError, match="values of type float8_e4m3fn"):
        redline.build(models.model(nodes, {"x": (4, 64)}, ["d"], constants))
    options = {"precision": "fp8", "calibrate": models.samples(2)}
    with pytest.raises(BuildError, match=r"fp8 for this target.*--target cuda:sm_90, or in int8"):
        redline.build(models.two_convolutions(), **options)
