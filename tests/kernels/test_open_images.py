"""Convolutions, depthwise convolutions and pools with open extents, at sizes below, at and above a tile."""

from dataclasses import replace

import pytest
from harness import SPLIT, TARGETS, TILED, needs_tiles
from open_harness import check

from redline.base.dtypes import bfloat16, float32, int8, int32, uint8
from redline.base.extents import dimension
from redline.kernels import conv, depthwise, pool
from redline.kernels.dot import accumulator
from redline.kernels.expr import Acc, Load, call, index, lit
from redline.kernels.problem import Operand

AVX512 = TARGETS["avx512"]
C = Operand.contiguous
B = [dimension(0, 1, 5, 2)]
HW = [dimension(0, 1, 24, 9), dimension(1, 1, 24, 10)]
BHW = [*HW, dimension(2, 1, 3, 1)]
IMAGES = [(1,), (2,), (5,)]
SIZES = [(1, 1), (5, 7), (12, 11), (24, 24), (3, 24)]


def image(make, n, h, w, channels, filters, taps, stride=1, pad=None, groups=1, layout="NHWC"):
    """A convolution with a bias, a residual and relu."""
    pad = taps // 2 if pad is None else pad
    out = tuple((e + 2 * pad - taps) // stride + 1 for e in (h, w))
    strides = (h * w * channels, w * channels, channels, 1) if layout == "NHWC" else (h * w * channels, w, 1, h * w)
    x = Operand(float32, (n, h, w, channels), strides)
    value = call("add", Acc(float32), Load(float32, 2, (index(3),)))
    value = call("add", value, Load(float32, 3, (index(0), index(1), index(2), index(3))))
    value = call("max", value, lit(0.0, float32))
    extra = (C(float32, (filters,)), C(float32, (n, *out, filters)))
    w_ = C(float32, (filters, channels // groups, taps, taps), True)
    return make(x, w_, C(float32, (n, *out, filters)), value, extra, (stride, stride), (1, 1), (pad,) * 4, groups)


CASES: dict[str, dict] = {
    "winograd": {"channels": 16, "filters": 32, "taps": 3},
    "odd": {"channels": 17, "filters": 20, "taps": 3},
    "narrow": {"channels": 3, "filters": 70, "taps": 5, "stride": 2},
    "step": {"channels": 8, "filters": 130, "taps": 3, "stride": 2},
    "halving": {"channels": 16, "filters": 32, "taps": 3, "stride": 2},
    "point": {"channels": 24, "filters": 33, "taps": 1},
    "strided_point": {"channels": 24, "filters": 33, "taps": 1, "stride": 2},
    "padded_point": {"channels": 16, "filters": 16, "taps": 1, "pad": 1},
    "groups": {"channels": 8, "filters": 12, "taps": 3, "groups": 2},
    "onnx_order": {"channels": 3, "filters": 32, "taps": 3, "stride": 2, "layout": "NCHW"},
}
QUICK = ("winograd", "narrow")
SLOW = [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]


def open_image(case):
    return lambda h, w: image(conv.Problem, 1, h * 2, w * 2, **CASES[case])


@pytest.mark.parametrize("case", SLOW)
def test_convolutions_of_open_images(case):
    make = open_image(case)
    found = conv.FAMILY.schedules(make(*HW), AVX512)
    check(conv.FAMILY, make, HW, SIZES, AVX512, [found[0], found[-1]], rtol=1e-4)


@pytest.mark.parametrize("x, weights", [(bfloat16, bfloat16), (uint8, int8)], ids=repr)
@pytest.mark.parametrize("case", ["odd", "narrow", "step"])
@needs_tiles
def test_open_images_on_tiles(case, x, weights):
    acc, facts = accumulator(x), CASES[case]

    def make(h, w):
        like = image(conv.Problem, 1, h * 2, w * 2, **facts)
        weight = C(weights, like.w.shape, True)
        return replace(like, x=replace(like.x, dtype=x), w=weight, out=C(acc, like.out.shape), epilogue=Acc(acc), extra=())

    found = conv.FAMILY.schedules(make(*HW), TILED)
    assert found[0].dot.startswith("amx-")
    check(conv.FAMILY, make, HW, SIZES, TILED, [found[0], found[-1]], rtol=0 if acc == int32 else 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_open_images_split_no_factors(case):
    for target, _ in SPLIT.values():
        assert not any("bf16x" in repr(schedule) for schedule in conv.FAMILY.schedules(open_image(case)(*HW), target))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_schedule_of_open_images(case):
    check(conv.FAMILY, open_image(case), HW, SIZES, AVX512, rtol=1e-4)


@pytest.mark.parametrize("case", ["winograd", "point", "strided_point"])
def test_convolutions_of_an_open_batch(case):
    make = lambda n: image(conv.Problem, n, 9, 7, **CASES[case])  # noqa: E731
    check(conv.FAMILY, make, B, IMAGES, AVX512, conv.FAMILY.schedules(make(*B), AVX512)[:1], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_everything_open(target):
    def make(h, w, n):
        return image(conv.Problem, n, h * 2, w * 2, channels=16, filters=24, taps=3)

    chosen = conv.FAMILY.schedules(make(*BHW), target)
    check(conv.FAMILY, make, BHW, [(3, 5, 2), (11, 12, 3)], target, [chosen[0], chosen[-1]], rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise(stride):
    def make(n, h, w):
        return image(depthwise.Problem, n, h, w, channels=37, filters=37, taps=3, stride=stride, groups=37)

    for of, dims, points in ((lambda h, w: make(1, h * 2, w * 2), HW, SIZES), (lambda n: make(n, 9, 7), B, IMAGES)):
        check(depthwise.FAMILY, of, dims, points, AVX512, depthwise.FAMILY.schedules(of(*dims), AVX512)[:1])


@pytest.mark.parametrize("kind, window", [
    ("max", pool.problem.Window(5, 1, 1, 2, 2)), ("max", pool.problem.Window(3, 2, 1, 1, 1)),
    ("average", pool.problem.Window(2, 2)), ("average", pool.problem.Window(3, 1, 1, 1, 1)),
])  # fmt: skip
def test_pools(kind, window):
    def make(n, h, w):
        out = tuple((e + window.pad_begin + window.pad_end - window.kernel) // window.stride + 1 for e in (h, w))
        x, y = C(float32, (n, h, w, 20)), C(float32, (n, *out, 20))
        return pool.Problem(kind, (x,), y, (window, window), Acc(float32))

    check(pool.FAMILY, lambda h, w: make(1, h * 2, w * 2), HW, SIZES, AVX512)
    check(pool.FAMILY, lambda n: make(n, 9, 7), B, IMAGES, AVX512)
