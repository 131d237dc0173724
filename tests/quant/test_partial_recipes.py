"""Recipes that leave layers in float need no range that the whole recipe does not have."""

import random
from pathlib import Path

import numpy as np
from onnx import helper

from redline import frontend, passes
from redline.builder import quantization
from redline.ir import Graph
from redline.quant import INT8, CalibrationCache, Tensor, insert, of_images, recipe_of
from tests.quant import models


def residual_blocks(depth: int = 3):
    """x [1, 16, 6, 6] -> (Conv, Relu, Conv, Add of what went in, Relu) ``depth`` times, then a Conv."""
    rng, nodes, constants = np.random.default_rng(0), [], {}
    for i in range(depth):
        before = f"r{i - 1}" if i else "x"
        for name in (f"u{i}", f"v{i}"):
            constants[f"w{name}"] = rng.standard_normal((16, 16, 1, 1), np.float32)
        nodes.append(helper.make_node("Conv", [before, f"wu{i}"], [f"u{i}"], f"first{i}"))
        nodes.append(helper.make_node("Relu", [f"u{i}"], [f"a{i}"], f"relu{i}"))
        nodes.append(helper.make_node("Conv", [f"a{i}", f"wv{i}"], [f"v{i}"], f"second{i}"))
        nodes.append(helper.make_node("Add", [f"v{i}", before], [f"s{i}"], f"sum{i}"))
        nodes.append(helper.make_node("Relu", [f"s{i}"], [f"r{i}"], f"out{i}"))
    constants["wy"] = rng.standard_normal((16, 16, 1, 1), np.float32)
    nodes.append(helper.make_node("Conv", [f"r{depth - 1}", "wy"], ["y"], "last"))
    return models.model(nodes, {"x": (1, 16, 6, 6)}, ["y"], constants)


def test_every_part_of_a_recipe_can_be_inserted() -> None:
    graph = passes.optimize(frontend.load(residual_blocks()))
    whole = recipe_of(graph)
    tensors = {name: Tensor(-1.0, 2.0) for name in whole.tensors.values()}
    names, choose = [layer.name for layer in whole.layers], random.Random(0)
    unmeasured = 0
    for _ in range(60):
        without = choose.sample(names, choose.randrange(len(names)))
        unmeasured += not set(recipe_of(graph, without).tensors.values()) <= set(tensors)
        insert(graph, recipe_of(graph, without, tensors), tensors)
    assert unmeasured, "no part of this model needs what was not measured: the test tests nothing"


class LeavesImages:
    """Of a shop what a build asks before it has its graph: one that reads images in float."""

    grids, narrow = (INT8,), None
    left_out = staticmethod(of_images)

    def make_integers(self, graph: Graph, summary, opt_level=None) -> Graph:
        return graph


def image_kept():
    """x [1, 3, 6, 6] -> a Conv of 3 channels with x added, beside a Conv of 16, then a Conv over both."""
    rng = np.random.default_rng(0)
    constants = {
        "wv": rng.standard_normal((3, 3, 3, 3), np.float32),
        "wu": rng.standard_normal((16, 3, 3, 3), np.float32),
        "wy": rng.standard_normal((8, 19, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "wv"], ["v"], "few", pads=[1] * 4),
        helper.make_node("Add", ["v", "x"], ["s"], "sum"),
        helper.make_node("Conv", ["x", "wu"], ["u"], "many", pads=[1] * 4),
        helper.make_node("Concat", ["s", "u"], ["c"], "both", axis=1),
        helper.make_node("Conv", ["c", "wy"], ["y"], "last"),
    ]
    return models.model(nodes, {"x": (1, 3, 6, 6)}, ["y"], constants)


def test_a_device_that_reads_images_in_float_needs_only_what_was_measured(tmp_path: Path) -> None:
    model = image_kept()
    graph = passes.optimize(frontend.load(model))
    measured = {name: Tensor(-1.0, 2.0) for name in recipe_of(graph).tensors.values()}
    assert not set(recipe_of(graph, of_images(graph)).tensors.values()) <= set(measured), "the test tests nothing"
    path = tmp_path / "ranges.json"
    CalibrationCache(quantization.model_hash(model), "mse", 1, measured).save(path)
    wish = quantization.Wish("int8", cache=path)
    made = quantization.make(model, graph, {}, LeavesImages(), wish, LeavesImages)
    assert sum(node.op == "QuantizeLinear" for node in made.nodes) > 0
