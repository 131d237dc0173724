"""Convolutions of one tap and upsamplings that repeat pixels: what is mixed before, and what stays."""

import numpy as np
import pytest
from checking import arg, check, names, unchanged, weights

from redline.ir import constant
from redline.ops import make
from redline.passes.mix_before_upsampling import run

ROUNDING = {"ulps": 64, "of_largest": True, "boundary": ()}
NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


def scaled(x, factors=(2, 2), **attrs):
    scales = constant(np.array([1, 1, *factors], np.float32))
    return make("Resize", x, None, scales, **NEAREST | attrs)


def mixed(x, filters=6, taps=1, bias=True, **attrs):
    channels = x.shape[3] if attrs.get("layout") == "NHWC" else x.shape[1]
    return make("Conv", x, weights(filters, channels, taps, taps), weights(filters, seed=2) if bias else None, **attrs)


def pyramid(layout="NCHW", *, factors=(2, 2), order=(0, 1), filters=6, bias=True, **attrs):
    """Conv(Concat(Resize(x), y)), the operands in any order."""
    if layout == "NHWC":
        small, large, axis = arg((2, 3, 4, 8)), arg((2, 3 * factors[0], 4 * factors[1], 5), name="y"), 3
    else:
        small, large, axis = arg((2, 8, 3, 4)), arg((2, 5, 3 * factors[0], 4 * factors[1]), name="y"), 1
    options = {"layout": layout} if layout == "NHWC" else {}
    parts = [scaled(small, factors, **options), large]
    return mixed(make("Concat", *(parts[i] for i in order), axis=axis), filters, bias=bias, **options, **attrs)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_beside_other_channels(layout, order, bias):
    found = names(check(run, pyramid(layout, order=order, bias=bias), **ROUNDING))
    assert sorted(found) == sorted(["Conv", "Conv", "Resize", "Add", *(["Concat"] if len(order) > 2 else [])])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("attrs", [{}, {"nearest_mode": "round_prefer_floor", "coordinate_transformation_mode": "half_pixel"}])
def test_alone(layout, attrs):
    x = arg((2, 3, 4, 8)) if layout == "NHWC" else arg((2, 8, 3, 4))
    options = {"layout": layout} if layout == "NHWC" else {}
    assert names(check(run, mixed(scaled(x, **options, **attrs), **options), **ROUNDING)) == ["Conv", "Resize"]


def test_two_upsampled_ones():
    parts = [scaled(arg((1, 4, 3, 4))), scaled(arg((1, 4, 2, 8), name="y"), (3, 1))]
    value = mixed(make("Concat", *parts, arg((1, 5, 6, 8), name="z"), axis=1))
    assert sorted(names(check(run, value, **ROUNDING))) == sorted(["Conv"] * 3 + ["Resize"] * 2 + ["Add"] * 2)


def test_odd_factors():
    check(run, pyramid(factors=(3, 1)), **ROUNDING)


@pytest.mark.parametrize(
    "value",
    [
        pyramid(filters=40),  # many filters of few channels
        pyramid(strides=(2, 2)),
        mixed(scaled(arg((1, 8, 3, 4))), taps=3, pads=(1, 1, 1, 1)),
        mixed(scaled(arg((1, 8, 3, 4)), mode="linear")),
        mixed(scaled(arg((1, 8, 4, 4)), (0.5, 0.5))),
        mixed(make("Concat", scaled(arg((1, 8, 3, 4))), scaled(arg((1, 8, 3, 4))), axis=2)),
    ],
    ids=["filters", "strides", "taps", "linear", "smaller", "rows"],
)
def test_others_stay(value):
    unchanged(run, value)
