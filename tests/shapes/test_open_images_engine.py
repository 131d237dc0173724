"""An engine for images of a range of sizes and batches: steps that are given, derived or impossible."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import redline
from redline.base import cpu
from redline.base.errors import InputError, RedlineError
from redline.base.shapes import ShapeRange, Sym, parse_shapes
from redline.builder.shapes import profile, profiles

SPAN = ShapeRange((1, 3, 16, 16), (1, 3, 32, 32), (2, 3, 64, 64))
SIZES = [(1, 16, 16), (2, 16, 64), (1, 48, 32), (2, 64, 64), (1, 36, 20)]


def detector() -> bytes:
    """Two halvings, a pool, a doubling back onto what was before, and boxes of two levels side by side."""
    rng = np.random.default_rng(0)
    weights = {"w1": (8, 3, 3, 3), "w2": (16, 8, 3, 3), "w3": (16, 16, 3, 3), "w4": (12, 24, 1, 1), "w5": (12, 16, 1, 1)}
    tensors = [numpy_helper.from_array((rng.standard_normal(s) / 4).astype(np.float32), n) for n, s in weights.items()]
    tensors += [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")]
    tensors += [numpy_helper.from_array(np.array([0, 12, -1]), "flat")]
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["a0"], strides=[2, 2], pads=[1, 1, 1, 1]), node("Relu", ["a0"], ["a"]),
        node("Conv", ["a", "w2"], ["b0"], strides=[2, 2], pads=[1, 1, 1, 1]), node("Sigmoid", ["b0"], ["b1"]),
        node("Mul", ["b0", "b1"], ["b2"]), node("Conv", ["b2", "w3"], ["b3"], pads=[1, 1, 1, 1]),
        node("MaxPool", ["b3"], ["b"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Resize", ["b", "", "twice"], ["up"], coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        node("Concat", ["up", "a"], ["joined"], axis=1), node("Conv", ["joined", "w4"], ["fine"]),
        node("Conv", ["b", "w5"], ["coarse"]),
        node("Reshape", ["fine", "flat"], ["f"]), node("Reshape", ["coarse", "flat"], ["c"]),
        node("Concat", ["f", "c"], ["all"], axis=2), node("Transpose", ["all"], ["y"], perm=[0, 2, 1]),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "boxes", 12])
    graph = helper.make_graph(nodes, "detector", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


@pytest.fixture(scope="module")
def engine():
    return redline.build(detector(), shapes={"x": SPAN}, opt_level=0)


@pytest.mark.parametrize("batch, height, width", SIZES)
def test_every_size_and_batch(engine, batch, height, width):
    session = onnxruntime.InferenceSession(detector(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(batch + height).standard_normal((batch, 3, height, width)).astype(np.float32)
    (want,) = session.run(None, {"x": x})
    got = engine(x=x)["y"]
    assert got.shape == want.shape and np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


@pytest.mark.skipif("amx_bf16" not in cpu.features(), reason="needs a processor with a matrix unit (AMX)")
@pytest.mark.parametrize("precision", ["bf16x3", "bf16x6"])
def test_precisions_that_split_factors(precision):
    engine = redline.build(detector(), shapes={"x": SPAN}, opt_level=0, precision=precision)
    session = onnxruntime.InferenceSession(detector(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(5).standard_normal((2, 3, 16, 64)).astype(np.float32)
    (want,) = session.run(None, {"x": x})
    assert np.linalg.norm(engine(x=x)["y"] - want) <= 2e-5 * np.linalg.norm(want)


def test_the_step_that_the_model_demands_is_derived(engine):
    assert "x: float32 batchx3x4*heightx4*width" in repr(engine)
    with pytest.raises(InputError, match=r"axis 2 \(height\) is 30; allowed: 16..64 in steps of 4"):
        engine(x=np.zeros((1, 3, 30, 32), np.float32))


def test_steps_that_are_given():
    span = parse_shapes(["x:1x3x320x320,1x3x640x640,4x3x1280x1280,1x1x32x32"])["x"]
    found = profile({"x": span}, {"x": (Sym("n"), 3, Sym("h"), Sym("w"))})
    assert [(d.name, d.min, d.opt, d.max) for d in found.dims] == [("n", 1, 1, 4), ("h", 10, 20, 40), ("w", 10, 20, 40)]
    assert found.at((2, 11, 13)) == {"x": (2, 3, 352, 416)}
    assert len(set(found.points()[-1])) == 3 and list(profiles({"x": span}, {"x": None}))[1:] == []


@pytest.mark.parametrize("text", ["x:1x30,1x64,1x96,1x32", "x:1x32,1x64,1x96,32", "x:1x32,1x64,1x96,0x32"])
def test_steps_that_are_none(text):
    with pytest.raises(RedlineError, match=r"\[--shapes\]"):
        parse_shapes([text])
