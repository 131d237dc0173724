"""Constants around products go into weights and bias, where nobody else reads the product and no shape grows."""

import numpy as np
import pytest
from checking import arg, check, const, names, unchanged, weights

from redline.ops import make
from redline.passes.fold_scale_shift import run

ROUNDING = {"ulps": 64, "of_largest": True, "boundary": ()}


def conv(x=None, bias=None, **attrs):
    return make("Conv", arg((1, 4, 6, 6)) if x is None else x, weights(6, 4, 3, 3), bias, **attrs)


def channels(count, rank=4, seed=3):
    """[1, count, 1, ...]"""
    return weights(1, count, *(1,) * (rank - 2), seed=seed)


def test_a_batch_normalization_goes_into_the_convolution():
    graph = check(run, make("Add", make("Mul", conv(bias=weights(6)), channels(6)), channels(6, seed=4)), **ROUNDING)
    assert names(graph) == ["Conv"]


def test_a_number_scales_and_shifts_all_channels():
    assert names(check(run, make("Add", make("Mul", conv(), const(2.5)), const(-1.0)), **ROUNDING)) == ["Conv"]


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolutions_have_their_channels_elsewhere(group):
    x = make("ConvTranspose", arg((1, 4, 3, 3)), weights(4, 6 // group, 2, 2), weights(6), group=group)
    assert names(check(run, make("Add", make("Mul", x, channels(6)), channels(6, seed=4)), **ROUNDING)) == ["ConvTranspose"]


def test_grouped_convolutions():
    x = make("Conv", arg((1, 4, 6, 6)), weights(6, 2, 3, 3), None, group=2)
    assert names(check(run, make("Mul", x, channels(6)), **ROUNDING)) == ["Conv"]


def test_channels_last():
    x = make("Conv", arg((1, 6, 6, 4)), weights(6, 4, 3, 3), None, layout="NHWC")
    assert names(check(run, make("Mul", x, weights(6)), **ROUNDING)) == ["Conv"]
    unchanged(run, make("Mul", x, channels(4)))


def test_a_product_takes_scales_and_keeps_shifts():
    product = make("MatMul", arg((5, 7)), weights(7, 6))
    assert names(check(run, make("Mul", product, weights(6)), **ROUNDING)) == ["MatMul"]
    unchanged(run, make("Add", product, weights(6)))
    scaled = make("Mul", make("Add", make("MatMul", arg((5, 7)), weights(7, 6)), weights(6)), weights(6, seed=5))
    assert names(check(run, scaled, **ROUNDING)) == ["Add", "MatMul"]


def test_a_scaled_input_scales_the_rows_of_the_weights():
    x = make("Mul", arg((5, 7)), weights(7))
    assert names(check(run, make("MatMul", x, weights(7, 6)), **ROUNDING)) == ["MatMul"]
    unchanged(run, make("MatMul", x, weights(7, 6)), make("Neg", x))


def test_what_others_read_stays_as_it_is():
    x = conv()
    unchanged(run, make("Mul", x, channels(6)), make("Relu", x))


def test_constants_that_are_not_per_channel_stay():
    unchanged(run, make("Mul", conv(), weights(1, 1, 4, 1)), make("Add", conv(), weights(4)))
    unchanged(run, make("Mul", conv(), weights(2, 6, 4, 4)))  # it makes the result larger


def test_weights_at_run_time_stay():
    x = make("Conv", arg((1, 4, 6, 6)), arg((6, 4, 3, 3), name="w"), None)
    unchanged(run, make("Mul", x, channels(6)))


def test_integers_stay():
    product = make("MatMul", arg((2, 3), "int32"), const(np.ones((3, 4)), "int32"))
    unchanged(run, make("Mul", product, const(3, "int32")))
