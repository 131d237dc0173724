"""A convolution and what reads its result, a band of rows at a time, against numpy: halos, padding, several readers, images."""

from dataclasses import replace

import pytest
from harness import FULL, TARGETS, TILED, check, needs_tiles

from redline.base.dtypes import bfloat16, float32
from redline.kernels import conv, depthwise, nest, pool
from redline.kernels.banded import FAMILY, Problem, Reader, applies
from redline.kernels.banded.schedule import Schedule, is_legal, ways
from redline.kernels.conv.candidates import of_even_rows
from redline.kernels.expr import Acc, Load, call, cast, index, lit
from redline.kernels.pool.problem import Window
from redline.kernels.problem import Operand

C = Operand.contiguous
AVX512 = TARGETS["avx512"]
HIGH, WIDE = 12, 10


def silu(value):
    return call("mul", value, call("sigmoid", value))


def convolution(x, filters, taps, stride=1, pads=(0, 0, 0, 0), extra=(), value=None, kind=conv.Problem, groups=1):
    """A convolution of ``x`` with a bias, operand 2, and SiLU; ``extra`` operands follow the bias."""
    shape = [(x.shape[i + 1] + pads[i] + pads[i + 2] - taps) // stride + 1 for i in range(2)]
    biased = call("add", Acc(float32), Load(float32, 2, (index(3),)))
    out = C(x.dtype, (x.shape[0], *shape, filters))
    w = C(x.dtype, (filters, x.shape[-1] // groups, taps, taps), True)
    value = cast(value or silu(biased), x.dtype)
    bias = C(float32, (filters,), True)
    return kind(x, w, out, value, (bias, *extra), (stride, stride), (1, 1), pads, groups)


def maker(filters=20, taps=3, stride=1, batch=1, dtype=float32, channels=5, high=HIGH):
    x = C(dtype, (batch, high * stride, WIDE * stride, channels))
    before = min((taps - 1) // 2, max(0, taps - stride))
    after = max(0, taps - stride - before)
    return convolution(x, filters, taps, stride, (before, before, after, after))


def strided(first, filters=24, taps=3, pads=(1, 1, 0, 0)):
    return Reader("conv", convolution(first.out, filters, taps, 2, pads))


def pointwise(first, filters=17, extra=(), value=None):
    return Reader("conv", convolution(first.out, filters, 1, extra=extra, value=value))


def parts_of_pixels(first, begin, count, groups=2):
    """A nest that doubles ``count`` channels of each group of them, and puts the groups outside."""
    _, height, width, channels = first.out.shape
    each = channels // groups
    read = Operand(float32, (1, height, width, groups, count), (0, width * channels, channels, each, 1))
    write = Operand(float32, (1, height, width, groups, count), (0, width * each, each, height * width * each, 1))
    body = call("add", Load(float32, 0, tuple(map(index, range(5)))), lit(1.0, float32))
    return Reader("nest", nest.Problem((read,), (write,), (body,)), 0, begin)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("taps", [1, 3, 6])
def test_a_strided_reader(target, taps, stride):
    first = maker(taps=taps, stride=stride)
    problem = Problem(first, (strided(first),))
    check(FAMILY, problem, target, FAMILY.schedules(problem, target))


@pytest.mark.parametrize("rows, parts", [(2, 1), (2, 3), (2, 6), (4, 1), (4, 3), (6, 2), (12, 1)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("pads", [(1, 1, 0, 0), (1, 2, 0, 1), (0, 0, 0, 0)])
def test_bands_parts_and_borders(pads, batch, rows, parts):
    first = maker(batch=batch)
    problem = Problem(first, (strided(first, taps=3 if any(pads) else 2, pads=pads),))
    schedule = Schedule(of_even_rows(first, AVX512)[0], rows, next(ways(problem, rows, AVX512)), parts)
    assert is_legal(problem, schedule, AVX512)
    check(FAMILY, problem, AVX512, [schedule])


def test_rows_too_long_for_the_caches_are_held_a_few_at_a_time():
    first = maker(filters=20, taps=1, high=6)
    small = replace(AVX512, l2_bytes=1 << 10)
    problem = Problem(first, (strided(first),))
    assert {s.rows for s in FAMILY.schedules(problem, small)} == {2}
    odd = maker(filters=20, taps=1, high=7)
    assert {s.rows for s in FAMILY.schedules(Problem(odd, (pointwise(odd),)), small)} == {1}
    check(FAMILY, problem, small, FAMILY.schedules(problem, small)[:1])


def test_images_of_one_column():
    first = conv.Problem(C(float32, (1, 35, 1, 8)), C(float32, (16, 8, 1, 1), True), C(float32, (1, 35, 1, 16)), Acc(float32))
    problem = Problem(first, (pointwise(first),))
    check(FAMILY, problem, AVX512, FAMILY.schedules(problem, AVX512))


def test_every_candidate():
    first = maker(high=24)
    problem = Problem(first, (strided(first), pointwise(first)))
    candidates = FAMILY.schedules(problem, AVX512)
    assert len(candidates) >= 4
    check(FAMILY, problem, AVX512, candidates)


def test_several_readers_with_other_paddings():
    first = maker(batch=2)
    sums = C(float32, (*first.out.shape[:-1], 17))
    with_sum = call("add", Acc(float32), Load(float32, 3, tuple(map(index, range(4)))))
    readers = (strided(first), pointwise(first, extra=(sums,), value=with_sum), strided(first, 8, 1, (0, 0, 0, 0)))
    problem = Problem(first, readers)
    for rows in (2, 6):
        way = next(ways(problem, rows, AVX512))
        check(FAMILY, problem, AVX512, [Schedule(of_even_rows(first, AVX512)[0], rows, way, parts) for parts in (1, 2)])


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_parts_of_the_channels(target):
    first = maker()
    problem = Problem(first, (parts_of_pixels(first, 0, 2), parts_of_pixels(first, 2, 1), parts_of_pixels(first, 3, 7)))
    check(FAMILY, problem, target, FAMILY.schedules(problem, target))


@pytest.mark.parametrize("taps, stride, pad", [(3, 2, 1), (2, 2, 0), (1, 1, 0)])
def test_a_pool(taps, stride, pad):
    first = maker(filters=16)
    window = Window(taps, stride, 1, pad, 0)
    out = C(float32, (1, HIGH // stride, WIDE // stride, 16))
    problem = Problem(first, (Reader("pool", pool.Problem("max", (first.out,), out, (window, window), silu(Acc(float32)))),))
    check(FAMILY, problem, AVX512, FAMILY.schedules(problem, AVX512))


def test_a_depthwise_reader():
    first = maker(filters=40)
    second = convolution(first.out, 40, 3, 2, (1, 1, 0, 0), kind=depthwise.Problem, groups=40)
    problem = Problem(first, (Reader("depthwise", second),))
    check(FAMILY, problem, AVX512, FAMILY.schedules(problem, AVX512))


@pytest.mark.parametrize("target", [pytest.param(FULL, id="vectors"), pytest.param(TILED, id="tiles", marks=needs_tiles)])
@pytest.mark.parametrize("channels", [20, 32])
def test_bfloat16(target, channels):
    first = maker(channels, dtype=bfloat16)
    problem = Problem(first, (strided(first), pointwise(first)))
    check(FAMILY, problem, target, FAMILY.schedules(problem, target), rtol=1e-2)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("batch", [1, 2])
def test_readers_of_readers(target, batch):
    first = maker(high=24, batch=batch)
    second = strided(first)
    last = convolution(second.problem.out, 10, 2, 2)
    readers = (pointwise(first), second, replace(pointwise(second.problem), of=1), Reader("conv", last, of=1))
    problem = Problem(first, readers)
    assert problem.unit == 4 and len(problem.writes) == 3
    check(FAMILY, problem, target, FAMILY.schedules(problem, target))


def test_parts_of_the_channels_of_a_reader():
    first = maker()
    second = pointwise(first, 20)
    problem = Problem(first, (second, *(replace(parts_of_pixels(second.problem, *part), of=0) for part in ((0, 2), (2, 8)))))
    check(FAMILY, problem, AVX512, FAMILY.schedules(problem, AVX512))


def test_readers_of_readers_that_are_not_joined():
    first = maker()
    second = pointwise(first)
    third = convolution(second.problem.out, 8, 3, 2, (1, 1, 0, 0))
    assert not applies(first, (second, Reader("conv", third, of=0)))  # needs a row above its band
    assert not applies(first, (replace(pointwise(second.problem), of=1), second))
    assert not applies(first, (replace(second, of=0),))


def test_what_is_not_joined():
    first = maker()
    assert applies(first, (strided(first),))
    assert not applies(first, ())
    assert not applies(first, (Reader("conv", convolution(first.out, 8, 3, 1, (1, 1, 1, 1))),))  # reads a row below its own
    assert not applies(maker(high=13), (strided(maker(high=13), pads=(1, 1, 1, 0)),))
    assert not applies(replace(first, w=replace(first.w, constant=False)), (strided(first),))
    by_row = call("mul", Acc(float32), cast(index(1), float32))
    assert not applies(first, (pointwise(first, value=by_row),))  # a band would not know which rows it has
    with pytest.raises(AssertionError, match="not to be joined"):
        Problem(first, (Reader("conv", replace(strided(first).problem, pad_value=1)), Reader("conv", strided(first).problem)))


def test_nests_that_are_not_cut():
    first = maker()
    (reader,) = (parts_of_pixels(first, 0, 2),)
    read = reader.problem.reads[0]
    swapped = replace(reader.problem, bodies=(Load(float32, 0, (index(0), index(2), index(1), index(3), index(4))),))
    across = replace(read, shape=(1, HIGH, 2 * WIDE, 2, 2))  # beyond the end of its row
    assert not applies(first, (replace(reader, problem=replace(reader.problem, reads=(across,))),))
    assert applies(first, (reader,)) and not applies(first, (replace(reader, problem=swapped),))
