"""Scales as data: the same answers to the bit, and layers that differ in nothing else are one problem."""

import numpy as np
import onnx
import pytest
from onnx import helper

from redline import frontend, passes
from redline.base import dtypes
from redline.ir import Graph
from redline.kernels import nest
from redline.kernels.expr import Call, Load, call, coordinates, lit
from redline.lower import lower, scalars
from redline.lower.program import Buffer, Program, Step, View
from redline.quant import FP8, INT8, Grid, Tensor, insert, recipe_of
from tests.lower import machine
from tests.quant import models


def residual_layers(depth: int = 3) -> onnx.ModelProto:
    """x [1, 8, 6, 6] -> (Conv, Add of what went in, Relu) ``depth`` times, all of one shape."""
    rng, nodes, constants = np.random.default_rng(0), [], {}
    for i in range(depth):
        before = f"r{i - 1}" if i else "x"
        constants[f"w{i}"] = rng.standard_normal((8, 8, 1, 1), np.float32)
        nodes.append(helper.make_node("Conv", [before, f"w{i}"], [f"c{i}"], f"conv{i}"))
        nodes.append(helper.make_node("Add", [f"c{i}", before], [f"s{i}"], f"sum{i}"))
        nodes.append(helper.make_node("Relu", [f"s{i}"], [f"r{i}"], f"relu{i}"))
    return models.model(nodes, {"x": (1, 8, 6, 6)}, [f"r{depth - 1}"], constants)


def quantized(grid: Grid) -> Graph:
    graph = passes.optimize(frontend.load(residual_layers()), signed=True)
    recipe = recipe_of(graph)
    tensors = {name: Tensor(-1.0 - i, 2.1 + i) for i, name in enumerate(recipe.tensors.values())}
    return passes.use_integers(insert(graph, recipe, tensors, grid=grid), signed=True)


def distinct(program: Program) -> int:
    return len({repr(step.problem) for step in program.steps})


@pytest.mark.parametrize("grid", [INT8, FP8], ids=lambda grid: grid.name)
def test_layers_of_one_shape_are_one_problem(grid: Grid) -> None:
    before = lower(quantized(grid), dtypes.float16)
    after = scalars.rewrite(before)
    assert (len(before.steps), distinct(before), distinct(after)) == (10, 8, 5)
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 8, 6, 6)).astype(np.float32)}
    wanted, found = machine.run(before, feeds), machine.run(after, feeds)
    assert all(np.array_equal(found[name], array) for name, array in wanted.items())


def test_what_holds_no_bytes_stays_as_it_is() -> None:
    program = lower(passes.optimize(frontend.load(residual_layers())), dtypes.float16)
    assert scalars.rewrite(program) == program


def loop(body: Call) -> Program:
    """``body`` of x [4], a vector of float32, as uint8."""
    x = View.whole(Buffer(0, "input", dtypes.float32, 4, "x"), (4,))
    y = View.whole(Buffer(1, "output", dtypes.uint8, 4, "y"), (4,))
    whole = Call(dtypes.uint8, "cast", (body,))
    step = Step("nest", nest.Problem((x.operand,), (y.operand,), (whole,)), (x,), (y,), ("y",), "")
    return Program("loop", (x.buffer, y.buffer), {}, (step,), (("x", x.buffer, (4,)),), (("y", y.buffer, (4,)),))


def test_whole_numbers_and_exponents_are_part_of_the_problem() -> None:
    x, number = Load(dtypes.float32, 0, coordinates(1)), lambda value: lit(value, dtypes.float32)
    held = call("min", call("max", call("mul", x, number(0.3)), number(0.0)), number(255.0))
    (step,) = scalars.rewrite(loop(held)).steps
    assert len(step.reads) == 2 and step.reads[1].shape == (1,)
    assert "0.0:float32" in repr(step.problem) and "255.0:float32" in repr(step.problem)
    root = loop(call("pow", x, number(0.5)))
    assert scalars.rewrite(root) == root
