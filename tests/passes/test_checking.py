"""The checker of passes fails on planted errors, small ones included."""

import numpy as np
import pytest

from redline.base.errors import RedlineError
from redline.ir import Graph, Node, Rule, rewrite
from redline.ops import make
from tests.passes.checking import arg, check, compare, const


def replacing(op, function):
    """A pass that rewrites every ``op`` node with ``function``."""
    return lambda graph: rewrite(graph, [Rule("planted", frozenset({op}), lambda node, rewriter: function(*node.inputs))])[0]


@pytest.mark.parametrize(
    "planted",
    [
        lambda x: make("Mul", x, const(np.float32(1 + 4e-7))),
        lambda x: make("Relu", x),
        lambda x: make("Clip", x, const(-3e38), const(3e38)),
        lambda x: make("Where", make("IsNaN", x), const(0.0), x),
        lambda x: make("Add", x, const(1e-6)),
    ],
    ids=["a few ulps", "negatives lost", "infinities lost", "NaN lost", "small offset"],
)
def test_wrong_values_are_seen(planted):
    with pytest.raises(AssertionError):
        check(replacing("Identity", planted), make("Identity", arg()), ulps=2)


def test_a_right_rewrite_passes():
    x = arg()
    graph = check(replacing("Neg", lambda x: make("Mul", x, const(-1.0))), make("Neg", x))
    assert [node.op for node in graph.operations] == ["Mul"]


def test_a_lost_type_is_seen():
    def retyped(graph):
        (name, value), *_ = graph.outputs
        wrong = Node("Cast", value.node.inputs, (arg().type,), {"to": 11}).out
        return Graph(graph.name, graph.inputs, ((name, wrong),))

    with pytest.raises(RedlineError, match="inference says"):
        check(retyped, make("Neg", arg()))


def test_errors_in_one_element_are_seen_beside_large_ones():
    expected = np.array([1e6, 1.0], np.float32)
    with pytest.raises(AssertionError):
        compare(np.array([1e6, 1.001], np.float32), expected, ulps=4)
    compare(np.array([1e6, 1.001], np.float32), expected, ulps=4, of_largest=True)
    with pytest.raises(AssertionError):
        compare(np.array([1e6, 2.001], np.float32), expected, ulps=4, of_largest=True)


def test_shapes_and_types_must_agree():
    for wrong in (np.zeros((2, 1), np.float32), np.zeros(2, np.float64)):
        with pytest.raises(AssertionError):
            compare(wrong, np.zeros(2, np.float32), ulps=1e9)
