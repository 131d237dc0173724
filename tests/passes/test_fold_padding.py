"""Pads that go into the window behind them, and those that mean something else there."""

import numpy as np
import pytest
from checking import arg, check, const, ints, names, only, unchanged, weights

from redline.ops import make, make_node
from redline.passes.fold_padding import run

ROUNDING = {"ulps": 8, "of_largest": True, "boundary": ()}


def image():
    return arg((1, 2, 6, 6))


def pad(x, *widths, fill=None, **attrs):
    return make("Pad", x, ints(*widths), None if fill is None else const(fill), **attrs)


def largest(x, **attrs):
    return make_node("MaxPool", (x,), attrs, num_outputs=1).out


AROUND = (0, 0, 1, 2, 0, 0, 3, 1)


def test_zeros_before_a_convolution():
    graph = check(run, make("Conv", pad(image(), *AROUND), weights(3, 2, 3, 3), None, pads=(1, 0, 0, 1)), **ROUNDING)
    assert names(graph) == ["Conv"]
    assert only(graph, "Conv").attrs["pads"] == (2, 2, 3, 2)


def test_an_automatic_padding_becomes_an_explicit_one():
    x = pad(image(), 0, 0, 1, 1, 0, 0, 1, 1)
    assert names(check(run, make("Conv", x, weights(3, 2, 3, 3), None, auto_pad="SAME_UPPER"), **ROUNDING)) == ["Conv"]


@pytest.mark.parametrize(
    "padded",
    [
        lambda: pad(image(), *AROUND, fill=1.0),
        lambda: pad(image(), *AROUND, mode="edge"),
        lambda: pad(image(), 0, 1, 0, 0, 0, 0, 0, 0),
        lambda: pad(image(), 0, 0, -1, 0, 0, 0, 0, 0),
    ],
    ids=["ones", "edges", "channels", "cut"],
)
def test_what_a_convolution_does_not_pad_with(padded):
    x = padded()
    unchanged(run, make("Conv", x, weights(3, x.shape[1], 3, 3), None))


def test_the_zeros_of_an_average_are_counted():
    graph = check(run, make("AveragePool", pad(image(), *AROUND), kernel_shape=(3, 3)), **ROUNDING)
    assert only(graph, "AveragePool").attrs["count_include_pad"] == 1
    mixed = make("AveragePool", pad(image(), *AROUND), kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    unchanged(run, mixed)  # its own zeros are not counted, the pad's are


def test_a_maximum_ignores_only_what_cannot_win():
    assert names(check(run, largest(pad(image(), *AROUND, fill=-np.inf), kernel_shape=(4, 4)))) == ["MaxPool"]
    unchanged(run, largest(pad(image(), *AROUND), kernel_shape=(4, 4)))
    positive = pad(make("Relu", image()), 0, 0, 1, 1, 0, 0, 1, 1)
    assert names(check(run, largest(positive, kernel_shape=(3, 3)))) == ["MaxPool", "Relu"]


def test_a_maximum_must_see_something_beside_zeros():
    positive = pad(make("Relu", image()), 0, 0, 3, 3, 0, 0, 3, 3)
    unchanged(run, largest(positive, kernel_shape=(3, 3)))


def test_rounding_up_keeps_the_pad():
    unchanged(run, largest(pad(image(), *AROUND, fill=-np.inf), kernel_shape=(4, 4), strides=(2, 2), ceil_mode=1))
