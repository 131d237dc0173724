"""Transposed convolutions whose kernels lie side by side."""

import pytest
from checking import arg, check, names, unchanged, weights

from redline.ops import make
from redline.passes.transposed_as_product import run

ROUNDING = {"ulps": 64, "of_largest": True, "boundary": ()}


def upsampled(filters=1, kernel=2, bias=True, **attrs):
    x, w = arg((2, 5, 4, 6)), weights(5, filters, kernel, kernel)
    return make("ConvTranspose", x, w, weights(filters, seed=2) if bias else None, **{"strides": (2, 2)} | attrs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("filters", [1, 3])
def test_few_filters_are_one_product(filters, bias):
    assert names(check(run, upsampled(filters, bias=bias), **ROUNDING)) == ["Conv", "DepthToSpace"]


def test_kernels_of_three():
    assert names(check(run, upsampled(1, 3, strides=(3, 3)), **ROUNDING)) == ["Conv", "DepthToSpace"]


@pytest.mark.parametrize(
    "attrs",
    [
        {"filters": 8},
        {"kernel": 3},
        {"kernel": 1, "strides": (1, 1)},
        {"pads": (1, 0, 0, 0)},
        {"output_padding": (1, 1)},
        {"strides": (2, 3)},
    ],
)
def test_others_stay(attrs):
    unchanged(run, upsampled(**attrs))
