"""Transposes move towards the outputs, cancel, or stay where moving them would cost."""

import numpy as np
import pytest
from checking import arg, check, const, ints, names, only, unchanged, weights

from redline.ops import make, make_node
from redline.passes.channels_last import run as channels_last
from redline.passes.push_transposes import run

X = (2, 3, 4, 5)


def moved(*perm, shape=X, name="x"):
    return make("Transpose", arg(shape, name=name), perm=perm)


def last(graph):
    (value,) = (value for _, value in graph.outputs)
    return value.op


def pushed(value, **options):
    graph = check(run, value, **options)
    assert last(graph) == "Transpose", str(graph)
    return graph


def test_elementwise_operators_and_their_constants():
    graph = pushed(make("Relu", make("Add", moved(0, 2, 3, 1), weights(3))))
    assert names(graph) == ["Add", "Relu", "Transpose"]
    assert only(graph, "Add").inputs[1].shape == (1, 3, 1, 1)


def test_two_that_come_the_same_way_become_one():
    graph = pushed(make("Mul", moved(0, 2, 3, 1), moved(0, 2, 3, 1, name="y")))
    assert names(graph) == ["Mul", "Transpose"]


def test_a_smaller_operand_is_transposed_back():
    graph = pushed(make("Mul", moved(0, 2, 3, 1), arg((2, 4, 1, 3), name="y")))
    assert names(graph) == ["Mul", "Transpose", "Transpose"]


def test_a_larger_operand_keeps_it():
    unchanged(run, make("Add", make("Transpose", arg((3, 4)), perm=(1, 0)), arg((5, 4, 3), name="y")))


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [(1,), (0, 3), (0, 1, 2, 3)])
def test_reductions(axes, keepdims):
    check(run, make("ReduceSum", moved(3, 0, 2, 1), ints(*axes), keepdims=keepdims), ulps=8, of_largest=True, boundary=())
    check(run, make("ArgMax", moved(3, 0, 2, 1), axis=axes[-1], keepdims=keepdims))


@pytest.mark.parametrize("axis", range(4))
def test_what_works_along_an_axis(axis):
    pushed(make("Softmax", moved(3, 0, 2, 1), axis=axis), ulps=8, boundary=())
    pushed(make("CumSum", moved(3, 0, 2, 1), const(axis, "int64")), ulps=8, of_largest=True, boundary=())
    pushed(make("Concat", moved(3, 0, 2, 1), moved(3, 0, 2, 1, name="y"), axis=axis))
    top = make_node("TopK", (moved(3, 0, 2, 1), ints(1)), {"axis": axis})
    check(run, *top.outputs())


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("indices", [1, [2, 0], [[0, 1], [1, 1]]])
def test_gathers(axis, indices):
    shape = (5, 4, 3, 4)
    check(run, make("Gather", moved(3, 0, 2, 1, shape=shape), const(np.array(indices), "int64"), axis=axis))


@pytest.mark.parametrize(
    ("start", "end", "axis", "step"), [(1, 3, 0, 1), (-1, -9, 2, -1), (2, 0, 1, -2), (1, 1, 3, 1), (4, 0, 0, -3)]
)
def test_slices_in_every_direction(start, end, axis, step):
    pushed(make("Slice", moved(3, 0, 2, 1), ints(start), ints(end), ints(axis), ints(step)))


def test_pads_and_expansions():
    pushed(make("Pad", moved(3, 0, 2, 1), ints(0, 1, 2, 3, 3, 2, 1, 0), const(7.0)))
    pushed(make("Expand", make("Transpose", arg((1, 3, 4)), perm=(2, 0, 1)), ints(2, 4, 6, 3)))


def test_a_normalization_of_axes_that_stay():
    x = moved(1, 0, 2, 3)
    pushed(make_node("LayerNormalization", (x, weights(5)), num_outputs=1).out, ulps=64, of_largest=True, boundary=())
    turned = moved(0, 1, 3, 2)
    unchanged(run, make_node("LayerNormalization", (turned, weights(4)), num_outputs=1).out)


def test_a_reshape_that_tears_nothing_apart():
    assert names(pushed(make("Reshape", moved(2, 3, 0, 1), ints(4, 5, 6)))) == ["Reshape", "Transpose"]
    unchanged(run, make("Reshape", moved(0, 2, 3, 1), ints(2, 60)))


def test_a_flattened_image_goes_into_the_weights_behind_it():
    flat = make("Reshape", make("Transpose", arg((2, 4, 4, 3)), perm=(0, 3, 1, 2)), ints(2, 48))
    graph = check(run, make("MatMul", flat, weights(48, 5)), ulps=64, of_largest=True, boundary=())
    assert names(graph) == ["MatMul", "Reshape"]


def test_a_network_of_convolutions_keeps_two_transposes():
    """One at its input, one at its output, none between."""
    x = make("Relu", make("Conv", arg((1, 3, 8, 8)), weights(4, 3, 3, 3), weights(4)))
    y = make("Conv", x, weights(4, 4, 1, 1), None)
    graph = check(
        lambda g: run(channels_last(g)),
        make("Add", make("Mul", x, make("Sigmoid", y)), x),
        ulps=64,
        of_largest=True,
        boundary=(),
    )
    assert names(graph).count("Transpose") == 2
