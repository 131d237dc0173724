"""Rows run along the last axis: other forms are reshaped where that is a view, and taken apart where it is not."""

import pytest
from checking import arg, check, names, unchanged, weights

from redline.ops import make, make_node
from redline.passes.shape_rows import run

ROUNDING = {"ulps": 64, "of_largest": True, "boundary": ()}


def layer(op, *inputs, **attrs):
    return make_node(op, inputs, attrs, num_outputs=1).out


def test_what_is_along_the_last_axis_stays():
    unchanged(run, make("Softmax", arg()), layer("LayerNormalization", arg(), weights(17), weights(17)))
    unchanged(run, make("LogSoftmax", arg((2, 3, 5)), axis=2), layer("RMSNormalization", arg((2, 3, 5)), weights(5)))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_softmax_along_an_inner_axis_is_reductions(op, axis):
    graph = check(run, make(op, arg((3, 4, 5)), axis=axis), **ROUNDING)
    assert op not in names(graph)


def test_a_normalization_of_two_axes_is_one_of_their_product():
    x, scale, bias = arg((2, 4, 5)), weights(4, 5), weights(4, 5, seed=2)
    graph = check(run, layer("LayerNormalization", x, scale, bias, axis=1), **ROUNDING)
    assert names(graph) == ["LayerNormalization", "Reshape", "Reshape", "Reshape", "Reshape"]
    graph = check(run, layer("RMSNormalization", x, scale, axis=1), **ROUNDING)
    assert names(graph).count("RMSNormalization") == 1


def test_one_number_scales_all_axes():
    graph = check(run, layer("LayerNormalization", arg((2, 4, 5)), weights(1), axis=1), **ROUNDING)
    assert names(graph) == ["LayerNormalization", "Reshape", "Reshape"]


def test_a_scale_that_varies_along_some_axes_takes_it_apart():
    graph = check(run, layer("LayerNormalization", arg((2, 4, 5)), weights(5), axis=1), **ROUNDING)
    assert "LayerNormalization" not in names(graph)


def test_statistics_take_it_apart():
    node = make_node("LayerNormalization", (arg((2, 4, 5)), weights(5)))
    assert len(node.types) == 3
    assert "LayerNormalization" not in names(check(run, *node.outputs(), **ROUNDING))
