"""INT8 from the data to the answers: builds, the gate, what is refused, and single operators against ONNX Runtime."""

import json
import warnings

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import redline
from redline.base.errors import BuildError, RedlineError
from redline.builder import gate
from redline.builder.quantization import CalibrationWarning, calibrate
from tests.quant.models import model, samples, two_convolutions

SHAPES = {"x": (1, 8, 12, 12)}


def expected(proto, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, feed)[0]


def cosine(a, b):
    a, b = a.reshape(-1).astype(float), b.reshape(-1).astype(float)
    return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "c.json"
    calibrate(two_convolutions(), samples(), path)
    return path


def test_int8_answers_nearly_like_float(tmp_path):
    engine = redline.build(two_convolutions(), precision="int8", calibrate=samples(), opt_level=0)
    assert {k.family for k in engine.header.kernels} >= {"conv", "depthwise"}
    for feed in samples(4, seed=9):
        assert cosine(engine.run(feed)["logits"], expected(two_convolutions(), feed)) > 0.998


def test_no_float_island_lies_between_the_convolutions():
    engine = redline.build(two_convolutions(), precision="int8", calibrate=samples(), opt_level=0)
    inner = [k for k in engine.header.kernels if k.family in ("conv", "depthwise")]
    assert [k.writes[0].dtype for k in inner] == ["uint8", "uint8", "float32"]  # a mean reads the last
    assert all(k.reads[0].dtype == "uint8" for k in inner)


def test_a_cache_serves_without_data_and_only_its_model(cache):
    engine = redline.build(two_convolutions(), precision="int8", calibration_cache=cache, opt_level=0)
    assert engine.report["precision"] == "int8"
    with pytest.raises(BuildError, match="it was made from the model"):
        redline.build(two_convolutions(seed=5), precision="int8", calibration_cache=cache, opt_level=0)


def test_best_keeps_layers_within_the_gate(tmp_path):
    engine = redline.build(two_convolutions(), precision="best", calibrate=samples(), min_cosine=0.9, opt_level=0)
    assert {row["layer"] for row in engine.report["layers"]} == {"first", "depthwise", "pointwise", "head"}
    assert engine.report["gate"]["cosine"] >= 0.9


def test_a_planted_bad_scale_is_caught_by_the_gate(cache, tmp_path):
    data = json.loads(cache.read_text())
    name = next(name for name in data["tensors"] if "relu2" in name or "depthwise" in name)
    for key in ("low", "high"):
        data["tensors"][name][key] *= 100
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(data))
    options = {"precision": "best", "calibrate": samples(), "opt_level": 0}
    good = redline.build(two_convolutions(), calibration_cache=cache, min_cosine=0.5, **options).report["gate"]["cosine"]
    engine = redline.build(two_convolutions(), calibration_cache=bad, min_cosine=good - 1e-4, **options)
    worst = max(engine.report["layers"], key=lambda row: row["noise"])
    assert worst["layer"] == "pointwise" and worst["precision"] == "fp32"


def test_a_gate_that_cannot_be_met(monkeypatch):
    monkeypatch.setattr(gate, "_layer_seconds", lambda engine, feed, layers: {})  # no clock says that no layer gains
    falling = iter(range(0, -100, -1))
    options = {"max_drop": 0.0, "metric": lambda outputs: next(falling)}
    with pytest.raises(BuildError, match=r"cannot be met.*allow more"):
        redline.build(two_convolutions(), precision="best", calibrate=samples(), opt_level=0, **options)


def test_where_no_layer_gains_the_float_engine_comes_whatever_the_gate(monkeypatch):
    floats = iter([True, False])  # asked of the float engine first
    same = lambda engine, feed, layers: dict.fromkeys([layer.name for layer in layers], 1.0 if next(floats) else 2.0)  # noqa: E731
    monkeypatch.setattr(gate, "_layer_seconds", same)
    monkeypatch.setattr(gate._Trial, "plan_seconds", lambda trial, plan: len(plan))
    engine = redline.build(two_convolutions(), precision="best", calibrate=samples(), opt_level=0, min_cosine=1.0)
    assert {row["precision"] for row in engine.report["layers"]} == {"fp32"}


def test_a_metric_of_the_caller():
    calls = []

    def metric(outputs):
        calls.append(len(outputs))
        return 1.0

    redline.build(two_convolutions(), precision="best", calibrate=samples(), max_drop=0.0, metric=metric, opt_level=0)
    assert calls and set(calls) == {24}


REFUSED = [
    ({"precision": "int8"}, "int8 without calibration data; give --calibrate DATA"),
    ({"precision": "best", "calibrate": samples()}, "best without a gate"),
    ({"precision": "best", "calibrate": samples(), "min_cosine": 1.1}, "1.1 is no cosine to ask for.*0 to 1"),
    ({"precision": "fp32", "calibrate": samples()}, "calibration or a gate with the precision fp32"),
    ({"precision": "int8", "calibrate": samples(), "calibrator": "mini"}, "there is no calibrator 'mini'"),
    ({"precision": "int8", "calibrate": [{"y": np.zeros(3)}]}, "there is no input 'y'"),
    ({"precision": "int8", "calibrate": []}, "the calibration data are empty"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_builds_that_are_refused_write_nothing(options, message, tmp_path):
    with pytest.raises(RedlineError, match=message):
        redline.build(two_convolutions(), output=tmp_path / "e.engine", calibration_cache=tmp_path / "c.json", **options)
    assert list(tmp_path.iterdir()) == []


def test_few_samples_are_warned_about():
    with pytest.warns(CalibrationWarning, match="only 3 calibration samples"):
        redline.build(two_convolutions(), precision="int8", calibrate=samples(3), opt_level=0)


# --- single operators -------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(3)


def u8(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def s8(*shape):
    return RNG.integers(-127, 128, shape, np.int8)


def number(value, kind=np.float32):
    return np.array(value, kind)


def scales(count):
    return RNG.uniform(0.002, 0.02, count).astype(np.float32)


CONVOLUTIONS = [
    ({"pads": [1, 1, 1, 1]}, (16, 8, 3, 3)),
    ({"pads": [2, 1, 0, 1], "strides": [2, 2]}, (17, 8, 3, 3)),
    ({}, (33, 8, 1, 1)),
    ({"pads": [1, 1, 1, 1], "group": 8}, (8, 1, 3, 3)),
    ({"pads": [1, 1, 1, 1], "group": 2, "dilations": [2, 2]}, (6, 4, 2, 2)),
    ({"kernel_shape": [5, 5], "auto_pad": "SAME_UPPER"}, (5, 8, 5, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("attrs", "shape"), CONVOLUTIONS)
@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 0), (np.uint8, 131), (np.int8, -7)])
def test_qlinear_conv(attrs, shape, kind, zero):
    out = shape[0]
    constants = {
        "xs": number(0.03), "xz": number(zero, kind), "w": s8(*shape), "ws": scales(out), "wz": np.zeros(out, np.int8),
        "ys": number(0.05), "yz": number(zero, kind), "b": RNG.integers(-500, 500, out, np.int32),
    }  # fmt: skip
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    node = helper.make_node("QLinearConv", names, ["y"], **attrs)
    tensor = TensorProto.UINT8 if kind == np.uint8 else TensorProto.INT8
    proto = model([node], {"x": (2, 8, 9, 11)}, ["y"], constants, tensor, tensor)
    feed = {"x": u8(2, 8, 9, 11) if kind == np.uint8 else s8(2, 8, 9, 11)}
    close(proto, feed)


def close(proto, feed, steps=1):
    engine = redline.build(proto, opt_level=0)
    found, wanted = next(iter(engine.run(feed).values())), expected(proto, feed)
    difference = np.abs(found.astype(np.int64) - wanted.astype(np.int64))
    assert found.dtype == wanted.dtype and difference.max() <= steps and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("k", [15, 16, 17, 64])
@pytest.mark.parametrize("b_kind", [np.int8, np.uint8])
def test_qlinear_matmul(k, b_kind):
    b = s8(k, 33) if b_kind == np.int8 else u8(k, 33)
    constants = {
        "as": number(0.02), "az": number(120, np.uint8), "b": b, "bs": number(0.01),
        "bz": number(0 if b_kind == np.int8 else 100, b_kind), "ys": number(0.2), "yz": number(99, np.uint8),
    }  # fmt: skip
    node = helper.make_node("QLinearMatMul", ["x", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"])
    close(model([node], {"x": (3, 7, k)}, ["y"], constants, TensorProto.UINT8, TensorProto.UINT8), {"x": u8(3, 7, k)})


@pytest.mark.parametrize("zeros", [(), ("az",), ("az", "bz")])
def test_matmul_integer_is_exact(zeros):
    constants = {"b": u8(21, 18), "az": number(77, np.uint8), "bz": number(131, np.uint8)}
    node = helper.make_node("MatMulInteger", ["x", "b", *zeros], ["y"])
    proto = model([node], {"x": (4, 21)}, ["y"], constants, TensorProto.UINT8, TensorProto.INT32)
    close(proto, {"x": u8(4, 21)}, steps=0)


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 2, 1, 0]])
def test_conv_integer_is_exact(pads):
    constants = {"w": u8(7, 5, 3, 3), "xz": number(77, np.uint8), "wz": number(128, np.uint8)}
    node = helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], pads=pads)
    proto = model([node], {"x": (1, 5, 6, 8)}, ["y"], constants, TensorProto.UINT8, TensorProto.INT32)
    engine, feed = redline.build(proto, opt_level=0), {"x": u8(1, 5, 6, 8)}
    np.testing.assert_array_equal(engine.run(feed)["y"], expected(proto, feed))


def test_dynamic_quantization():
    constants = {"w": s8(24, 16), "ws": number(0.01)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["t"]),
        helper.make_node("Mul", ["f", "t"], ["y"]),
    ]
    proto = model(nodes, {"x": (5, 24)}, ["y"], constants)
    feed = {"x": RNG.standard_normal((5, 24)).astype(np.float32)}
    engine = redline.build(proto, opt_level=0)
    np.testing.assert_allclose(engine.run(feed)["y"], expected(proto, feed), rtol=1e-3, atol=1e-3)
    assert any(k.family == "matmul" and k.reads[0].dtype == "uint8" for k in engine.header.kernels)


def test_products_of_two_activations():
    nodes, constants = [], {"s": number(0.02), "z": number(120, np.uint8), "t": number(0.03), "y_z": number(5, np.int8)}
    for name, zero in (("a", "z"), ("b", "y_z")):
        nodes.append(helper.make_node("QuantizeLinear", [name, "s", zero], [f"{name}q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}q", "s", zero], [f"{name}d"]))
    nodes.append(helper.make_node("MatMul", ["ad", "bd"], ["y"]))
    proto = model(nodes, {"a": (2, 6, 19), "b": (2, 19, 10)}, ["y"], constants)
    feed = {"a": RNG.standard_normal((2, 6, 19)).astype(np.float32), "b": RNG.standard_normal((2, 19, 10)).astype(np.float32)}
    engine = redline.build(proto, opt_level=0)
    np.testing.assert_allclose(engine.run(feed)["y"], expected(proto, feed), rtol=1e-4, atol=1e-3)
    assert any(k.family == "matmul" and k.reads[0].dtype == "uint8" for k in engine.header.kernels)


def test_calibration_warnings_are_off_for_good_data():
    with warnings.catch_warnings():
        warnings.simplefilter("error", CalibrationWarning)
        redline.build(two_convolutions(), precision="int8", calibrate=samples(), opt_level=0)
