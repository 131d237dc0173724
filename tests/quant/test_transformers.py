"""Transformers in INT8: what stays in 16 bits, and that it is found by the noise in the residual stream alone."""

import json

import numpy as np
import pytest
from onnx import helper

import redline
from redline import frontend, passes
from redline.builder import calibration
from redline.builder.workshop import Workshop
from redline.codegen.c import isa, toolchain
from redline.quant import recipe_of
from redline.quant.cache import CalibrationCache
from redline.quant.statistics import Tensor
from redline.quant.streams import streams
from tests.quant.models import model

ROWS, WIDTH, HEADS = 16, 32, 2
SHAPE = (1, ROWS, WIDTH)


def block(seed: int = 0):
    """x [1, 16, 32] -> attention of two heads and a GELU block, each added to what it read."""
    rng = np.random.default_rng(seed)
    weight = lambda *shape: rng.standard_normal(shape).astype(np.float32) / shape[0] ** 0.5  # noqa: E731
    split = np.array([1, ROWS, HEADS, WIDTH // HEADS], np.int64)
    constants = {
        "wq": weight(WIDTH, WIDTH), "wk": weight(WIDTH, WIDTH), "wv": weight(WIDTH, WIDTH), "wo": weight(WIDTH, WIDTH),
        "up": weight(WIDTH, 4 * WIDTH), "down": weight(4 * WIDTH, WIDTH), "split": split,
        "join": np.array(SHAPE, np.int64), "scale": np.array(0.25, np.float32),
    }  # fmt: skip
    nodes = []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes.append(helper.make_node("MatMul", ["x", f"w{name}"], [f"{name}0"], f"project_{name}"))
        nodes.append(helper.make_node("Reshape", [f"{name}0", "split"], [f"{name}1"]))
        nodes.append(helper.make_node("Transpose", [f"{name}1"], [f"{name}2"], perm=perm))
    nodes += [
        helper.make_node("MatMul", ["q2", "k2"], ["dots"]),
        helper.make_node("Mul", ["dots", "scale"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v2"], ["seen"]),
        helper.make_node("Transpose", ["seen"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "join"], ["joined"]),
        helper.make_node("MatMul", ["joined", "wo"], ["attended"], "attended"),
        helper.make_node("Add", ["attended", "x"], ["stream"]),
        helper.make_node("MatMul", ["stream", "up"], ["wide"], "up"),
        helper.make_node("Gelu", ["wide"], ["bent"], "gelu"),
        helper.make_node("MatMul", ["bent", "down"], ["narrow"], "down"),
        helper.make_node("Add", ["narrow", "stream"], ["y"]),
    ]
    return model(nodes, {"x": SHAPE}, ["y"], constants)


def feeds(count: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(count)]


def has_bf16() -> bool:
    return "bf16" in isa.target("cpu", 1).features


def test_the_products_that_are_added_to_the_stream():
    graph = passes.optimize(frontend.load(block()))
    recipe = recipe_of(graph)
    into = streams(graph, recipe)
    assert [layer.name for layer in into] == ["attended", "down"]
    assert all(value.op == "Add" for value in into.values())


@pytest.mark.skipif(not has_bf16(), reason="needs a processor that multiplies BF16")
def test_attention_reads_16_bits():
    engine = redline.build(block(), precision="int8", calibrate=feeds(20), opt_level=0)
    (kernel,) = [k for k in engine.header.kernels if k.family == "attention"]
    assert [access.dtype for access in kernel.reads[:3]] == ["bfloat16"] * 3
    assert kernel.writes[0].dtype == "float32"


def error_of(engine, proto):
    wide = redline.build(proto, opt_level=0)
    pairs = [(engine.run(feed)["y"].copy(), wide.run(feed)["y"].copy()) for feed in feeds(8, seed=5)]
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs)


def test_wide_products_are_built_from_the_cache(tmp_path):
    proto, cache = block(), tmp_path / "c.json"
    narrow = redline.build(proto, precision="int8", calibrate=feeds(20), calibration_cache=cache, opt_level=0)
    data = json.loads(cache.read_text())
    graph = passes.optimize(frontend.load(proto))
    recipe = recipe_of(graph)
    for layer in streams(graph, recipe):
        data["tensors"][recipe.tensors[layer.x]]["wide"] = True
    cache.write_text(json.dumps(data))
    wide = redline.build(proto, precision="int8", calibration_cache=cache, opt_level=0)
    reads = [[k.reads[0].dtype for k in engine.header.kernels if k.family == "matmul"] for engine in (narrow, wide)]
    assert reads[0].count("uint8") == reads[1].count("uint8") + 2
    assert error_of(wide, proto) < error_of(narrow, proto)


def test_noise_in_the_stream_decides(monkeypatch):
    graph = passes.optimize(frontend.load(block()))
    recipe = recipe_of(graph)
    shop = Workshop(isa.target("cpu", 1), toolchain.find(), 0, None, lambda stage, done, total: None)
    counts = []
    for limit in (1.0, 0.0):
        monkeypatch.setattr(calibration, "MOST_NOISE", limit)
        found = calibration.ranges(graph, recipe, feeds(8), "minmax", True, shop)
        counts.append(sum(tensor.wide for tensor in found.values()))
    assert counts == [0, 2]


def test_the_cache_keeps_what_is_wide(tmp_path):
    CalibrationCache("abc", "mse", 9, {"a": Tensor(-1.0, 2.0, wide=True), "b": Tensor(-1.0, 2.0)}).save(tmp_path / "c.json")
    found = CalibrationCache.open(tmp_path / "c.json", "abc").tensors
    assert (found["a"].wide, found["b"].wide) == (True, False)
