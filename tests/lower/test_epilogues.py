"""What joins the kernel of a product: chains, and branches of them that come together again."""

import numpy as np
import pytest

from redline.base.dtypes import float32
from redline.ir import INPUT, Graph, TensorType, Value, constant, input_node
from redline.lower import lower
from redline.ops import make
from tests.lower import machine
from tests.lower.test_random_programs import agree


def arg(name: str, *shape: int) -> Value:
    return input_node(name, TensorType(float32, shape)).out


def number(value: float) -> Value:
    return constant(np.array(value, np.float32))


def graph(*outputs: Value) -> Graph:
    named = tuple((f"y{i}", value) for i, value in enumerate(outputs))
    inputs = [node for node in Graph("epilogues", (), named).nodes if node.op == INPUT]
    return Graph("epilogues", tuple(sorted(inputs, key=lambda node: node.name)), named)


@pytest.fixture
def product() -> Value:
    rng = np.random.default_rng(0)
    return make("MatMul", arg("a", 5, 8), constant(rng.standard_normal((8, 12)).astype(np.float32)))


def gated(x: Value) -> Value:
    """(x + 1) * clip(x + 4, 0, 6) / 6: no activation that has a name."""
    gate = make("Clip", make("Add", x, number(4)), number(0), number(6))
    return make("Mul", make("Mul", make("Add", x, number(1)), gate), number(1 / 6))


def check(*outputs: Value, steps: int) -> None:
    found = graph(*outputs)
    program = lower(found)
    assert [step.family for step in program.steps].count("matmul") == 1
    assert len(program.steps) == steps
    rng = np.random.default_rng(1)
    feeds = {node.name: rng.standard_normal(node.types[0].shape).astype(np.float32) for node in found.inputs}
    agree(machine.run(program, feeds), found, feeds)


def test_branches_that_come_together(product: Value) -> None:
    check(gated(gated(product)), steps=1)


def test_branches_with_operands_of_their_own(product: Value) -> None:
    left, right = make("Mul", product, arg("p", 5, 12)), make("Add", product, arg("q", 12))
    check(make("Sub", left, make("Mul", right, product)), steps=1)


def test_a_value_that_is_seen_stays(product: Value) -> None:
    """The output in the middle is written, and so the kernel ends there."""
    seen = make("Add", product, number(4))
    check(make("Mul", product, seen), seen, steps=3)


def test_branches_of_other_shapes_stay_apart(product: Value) -> None:
    mean = make("ReduceMean", product, constant(np.array([1])), keepdims=1)
    check(make("Sub", product, mean), steps=3)


def test_long_branches_stay_apart(product: Value) -> None:
    value, other = product, arg("p", 5, 12)
    for _ in range(10):
        value = make("Add", make("Sin", value), other)
    check(make("Mul", product, value), steps=2)
