"""Matrix products against numpy: shapes that straddle vectors, views, types, epilogues, every schedule, every target."""

from dataclasses import replace

import numpy as np
import pytest
from harness import FULL, GROUPING, SPLIT, TARGETS, TILED, check, needs_tiles, random_arrays, run

from redline.base import dtypes
from redline.base.dtypes import bfloat16, float16, float32, float64, int8, int32, int64, uint8
from redline.kernels import matmul, tile
from redline.kernels.dot import accumulator
from redline.kernels.expr import Acc, Load, call, cast, index, lit
from redline.kernels.problem import Operand

FAMILY = matmul.FAMILY
AVX512 = TARGETS["avx512"]
C = Operand.contiguous


def square(m: int, n: int, k: int, dtype: dtypes.DType = float32, constant: bool = True) -> matmul.Problem:
    return matmul.product(C(dtype, (m, k)), C(dtype, (k, n), constant), C(accumulator(dtype), (m, n)))


def with_bias_and_relu(m: int, n: int, k: int, constant: bool = True) -> matmul.Problem:
    bias, residual = Load(float32, 2, (index(1),)), Load(float32, 3, (index(0), index(1)))
    value = call("max", call("add", call("add", Acc(float32), bias), residual), lit(0.0, float32))
    a, b, out = C(float32, (m, k)), C(float32, (k, n), constant), C(float32, (m, n))
    return matmul.Problem(a, b, out, value, (C(float32, (n,)), C(float32, (m, n))))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("m, n, k", [(15, 17, 33), (16, 33, 15), (17, 31, 16), (31, 16, 17), (1, 100, 64), (33, 1, 5)])
@pytest.mark.parametrize("constant", [True, False])
def test_straddling_sizes(target, m, n, k, constant):
    check(FAMILY, with_bias_and_relu(m, n, k, constant), target)


@pytest.mark.parametrize("constant", [True, False])
def test_every_schedule(constant):
    problem = with_bias_and_relu(29, 150, 40, constant)
    candidates = FAMILY.schedules(problem, AVX512)
    assert len(candidates) >= 6
    check(FAMILY, problem, AVX512, candidates)


@pytest.mark.parametrize("m, n, k", [(0, 5, 4), (5, 0, 4), (3, 20, 0), (1, 1, 1)])
def test_empty_and_single(m, n, k):
    check(FAMILY, square(m, n, k), AVX512)


@pytest.mark.parametrize("dtype", [float64, int32, int64, int8, uint8, float16, bfloat16], ids=repr)
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("target", ["avx512", "generic"])
def test_types(dtype, constant, target):
    check(FAMILY, square(18, 35, 21, dtype, constant), TARGETS[target])


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=repr)
def test_sixteen_bit_result(dtype):
    out = C(dtype, (7, 40))
    problem = matmul.Problem(C(dtype, (7, 9)), C(dtype, (9, 40), True), out, cast(Acc(float32), dtype))
    check(FAMILY, problem, AVX512, rtol=1e-2)


TRANSPOSED = Operand(float32, (21, 40), (1, 21))
WIDE_ROWS = Operand(float32, (21, 40), (64, 1))


@pytest.mark.parametrize("a", [TRANSPOSED, WIDE_ROWS], ids=["transposed", "wide"])
@pytest.mark.parametrize("b", [Operand(float32, (40, 50), (1, 40)), Operand(float32, (40, 50), (80, 1))], ids=["t", "w"])
@pytest.mark.parametrize("out", [Operand(float32, (21, 50), (1, 21)), Operand(float32, (21, 50), (99, 1))], ids=["t", "w"])
def test_strided_views(a, b, out):
    check(FAMILY, matmul.product(a, b, out), AVX512, FAMILY.schedules(matmul.product(a, b, out), AVX512)[::3])


def test_broadcast_batches():
    a = Operand(float32, (3, 4, 17, 20), (4 * 340, 340, 20, 1))
    b = Operand(float32, (3, 4, 20, 33), (660, 0, 33, 1))
    check(FAMILY, matmul.product(a, b, C(float32, (3, 4, 17, 33))), AVX512)


def test_batches_become_rows_and_keep_their_coordinates():
    a, b = C(float32, (3, 5, 7, 20)), Operand(float32, (3, 5, 20, 33), (0, 0, 33, 1), True)
    value = call("add", Acc(float32), Load(float32, 2, (index(1), index(0), index(2), index(3))))
    problem = matmul.Problem(a, b, C(float32, (3, 5, 7, 33)), value, (C(float32, (5, 3, 7, 33)),))
    check(FAMILY, problem, AVX512, FAMILY.schedules(problem, AVX512)[::2])


def test_constant_batches():
    check(FAMILY, matmul.product(C(float32, (4, 9, 20)), C(float32, (4, 20, 33), True), C(float32, (4, 9, 33))), AVX512)


def test_constant_left_operand_is_packed():
    a, b = Operand(float32, (2, 48, 20), (0, 20, 1), True), C(float32, (2, 20, 33))
    problem = matmul.product(a, b, C(float32, (2, 48, 33)))
    check(FAMILY, problem, AVX512, FAMILY.schedules(problem, AVX512))


def test_heads_side_by_side():
    """The views that attention makes: [batch, heads, sequence, width] of one [batch, sequence, heads * width] array."""
    q = Operand(float32, (1, 4, 17, 16), (0, 16, 64, 1))
    k = Operand(float32, (1, 4, 16, 17), (0, 16, 1, 64))
    check(FAMILY, matmul.product(q, k, C(float32, (1, 4, 17, 17))), AVX512)


def test_nan_and_infinities_stay_in_their_rows_and_columns():
    problem = with_bias_and_relu(20, 37, 24)
    arrays = [np.array(array) for array in random_arrays(problem.reads)]
    arrays[0][3, 5], arrays[0][8, 0], arrays[1][2, 36] = np.nan, np.inf, -np.inf
    check(FAMILY, problem, AVX512, arrays=arrays)


GROUPED = [(bfloat16, bfloat16), (uint8, int8), (int8, int8)]


def extremes(problem: matmul.Problem) -> list[np.ndarray]:
    """Operands with the largest magnitudes of their types among them."""
    arrays = [np.array(array) for array in random_arrays(problem.reads)]
    for array, operand in zip(arrays, problem.reads, strict=True):
        if operand.dtype.is_integer:
            limits = np.iinfo(operand.dtype.numpy)
            array.reshape(-1)[::3], array.reshape(-1)[1::5] = limits.max, limits.min
    return arrays


@pytest.mark.parametrize("a, b", GROUPED, ids=repr)
@pytest.mark.parametrize("m, n, k", [(15, 33, 1), (17, 16, 30), (31, 70, 64), (1, 100, 35)])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("target", GROUPING)
def test_grouped_products(a, b, m, n, k, constant, target):
    acc = accumulator(a)
    problem = matmul.product(C(a, (m, k)), C(b, (k, n), constant), C(acc, (m, n)))
    candidates = FAMILY.schedules(problem, target)
    if constant or a != int8:
        assert candidates[0].dot
    rtol = 0 if acc == int32 else 1e-5
    check(FAMILY, problem, target, candidates, arrays=extremes(problem), rtol=rtol)


@pytest.mark.parametrize("a, b", GROUPED, ids=repr)
@pytest.mark.parametrize("m, n, k", [(49, 80, 144), (130, 33, 520), (65, 17, 74)])
@needs_tiles
def test_tiles_of_every_shape(a, b, m, n, k):
    """Heights that do not divide the rows, depths that do and do not divide into whole tiles, panels that end early."""
    acc = accumulator(a)
    problem = matmul.product(C(a, (m, k)), C(b, (k, n), True), C(acc, (m, n)))
    first = FAMILY.schedules(problem, TILED)[0]
    assert first.dot.startswith("amx-")
    shapes = [(rows, vectors) for rows in (7, 16, 19, 32, 48) for vectors in (1, 2, 3, 6)]
    found = [replace(first, rows=rows, vectors=v, row_chunks=1, panel_chunks=1, swapped=False) for rows, v in shapes]
    legal = [s for s in found if matmul.is_legal(problem, s, TILED)]
    assert len(legal) > 8
    check(FAMILY, problem, TILED, legal, arrays=extremes(problem), rtol=0 if acc == int32 else 1e-5)
    assert not matmul.is_legal(problem, replace(legal[0], rows=48, vectors=2), TILED), "more sums than registers"


@needs_tiles
@pytest.mark.parametrize("m, n, k", [(61, 200, 64), (40, 96, 2080), (5, 17, 32)])
@pytest.mark.parametrize("order", [{}, {"staged": True}, {"rows_outer": True}, {"prefetch": True}], ids=str)
def test_tiles_in_every_order(m, n, k, order):
    """The epilogue of a tile comes one tile later, whatever comes next: the last of a chunk, a narrower panel, fewer rows."""
    bias, residual = Load(float32, 2, (index(1),)), cast(Load(bfloat16, 3, (index(0), index(1))), float32)
    value = cast(call("gelu", call("add", call("add", Acc(float32), bias), residual)), bfloat16)
    a, b, out = C(bfloat16, (m, k)), C(bfloat16, (k, n), True), C(bfloat16, (m, n))
    problem = matmul.Problem(a, b, out, value, (C(float32, (n,)), C(bfloat16, (m, n))))
    first = FAMILY.schedules(problem, TILED)[0]
    cuts = [(16, 3, 1, 1), (16, 2, 3, 2), (31, 2, 2, 3), (32, 1, 1, 4)]
    found = [
        replace(first, rows=rows, vectors=v, row_chunks=r, panel_chunks=p, swapped=False, **{"prefetch": False} | order)
        for rows, v, r, p in cuts
    ]  # fmt: skip
    legal = [s for s in found if matmul.is_legal(problem, s, TILED)]
    assert legal
    check(FAMILY, problem, TILED, legal, rtol=1e-2)


@pytest.mark.parametrize("a, b", [(float32, float32), (float64, float64), *GROUPED], ids=repr)
@pytest.mark.parametrize("m, n, k", [(29, 24, 33), (18, 55, 7)])
def test_halved_vectors(a, b, m, n, k):
    acc = accumulator(a)
    problem = matmul.product(C(a, (m, k)), C(b, (k, n), True), C(acc, (m, n)))
    first = FAMILY.schedules(problem, FULL)[0]
    halved = [replace(first, rows=rows, vectors=v, panel_chunks=1, swapped=False, halved=True) for rows, v in ((9, 3), (4, 2))]
    found = [schedule for schedule in halved if matmul.is_legal(problem, schedule, FULL)]
    assert found
    check(FAMILY, problem, FULL, found, arrays=extremes(problem), rtol=0 if acc == int32 else 1e-5)


def test_columns_that_fill_half_a_vector_more_are_offered_halved_vectors():
    offered = {n: any(s.halved for s in FAMILY.schedules(square(300, n, 64), FULL)) for n in (16, 24, 25, 32, 40)}
    assert offered == {16: False, 24: True, 25: False, 32: False, 40: True}
    assert not matmul.is_legal(square(8, 24, 8), matmul.Schedule(4, 3, halved=True), TARGETS["avx2"])


@pytest.mark.parametrize("a, b", GROUPED, ids=repr)
@pytest.mark.parametrize("target", GROUPING)
def test_grouped_products_of_views(a, b, target):
    acc = accumulator(a)
    left = Operand(a, (2, 21, 40), (21 * 40, 1, 21))
    right = Operand(b, (2, 40, 50), (0, 1, 40), True)
    out = Operand(acc, (2, 21, 50), (21 * 50, 1, 21))
    problem = matmul.product(left, right, out)
    check(FAMILY, problem, target, FAMILY.schedules(problem, target)[::3], rtol=0 if acc == int32 else 1e-5)


def test_grouped_products_need_the_instruction():
    problem = matmul.product(C(bfloat16, (8, 8)), C(bfloat16, (8, 8), True), C(float32, (8, 8)))
    assert {schedule.dot for schedule in FAMILY.schedules(problem, AVX512)} == {""}
    assert not matmul.is_legal(problem, matmul.Schedule(4, 1, dot="bf16"), AVX512)
    assert matmul.is_legal(problem, matmul.Schedule(4, 1, dot="bf16"), FULL)


@pytest.mark.parametrize("m, n, k", [(15, 33, 1), (31, 70, 64), (65, 17, 74)])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("name", SPLIT)
@needs_tiles
def test_split_factors(m, n, k, constant, name):
    """Sixteen or all bits of every factor count, where bfloat16 alone would be 2^-8 off. The vector unit competes."""
    problem, (target, rtol) = with_bias_and_relu(m, n, k, constant), SPLIT[name]
    first, second, *rest = FAMILY.schedules(problem, target)
    assert (first.dot, second.dot) == (f"amx-{name}", "")
    check(FAMILY, problem, target, [first, *(s for s in rest if s.dot)], rtol=rtol)


@needs_tiles
def test_three_parts_hold_a_float32():
    """Products with ones add up to the number itself, bit for bit: nothing of it is lost but what is smaller than 2^-126."""
    left, one = Operand(float32, (32, 32), (32, 1)), C(float32, (32, 16), True)
    problem = matmul.product(left, one, C(float32, (32, 16)))
    target, _ = SPLIT["bf16x6"]
    numbers = np.random.default_rng(3).standard_normal(32) * 2.0 ** np.random.default_rng(4).integers(-90, 90, 32)
    arrays = [np.diag(numbers).astype(np.float32), np.ones((32, 16), np.float32)]
    for schedule in [s for s in FAMILY.schedules(problem, target) if s.dot]:
        (got,) = run(FAMILY, problem, schedule, target, arrays)
        np.testing.assert_array_equal(got, np.broadcast_to(arrays[0].diagonal()[:, None], (32, 16)))


@needs_tiles
@pytest.mark.parametrize("target", [target for target, _ in SPLIT.values()], ids=SPLIT)
def test_what_is_not_finite_stays_in_its_row_when_factors_are_split(target):
    """An infinity may become NaN: its product with the rest of the other factor has any sign."""
    problem = square(20, 37, 24)
    arrays = [np.array(array) for array in random_arrays(problem.reads)]
    arrays[0][3, 5], arrays[0][8, 0] = np.nan, np.inf
    got = run(FAMILY, problem, FAMILY.schedules(problem, target)[0], target, arrays)[0]
    (want,) = FAMILY.reference(problem, arrays)
    finite = np.isfinite(want)
    assert (np.isfinite(got) == finite).all() and not finite[3].any() and not finite[8].any()
    assert np.abs(got[finite] - want[finite]).max() <= 2e-5 * np.abs(want[finite]).max()


@pytest.mark.parametrize("n", [47, 32, 64])
@needs_tiles
def test_tiles_that_ask_for_the_next(n):
    """Rows of results that do not stay in the threads' own caches are asked for a tile ahead, beyond the last one too."""
    small = replace(TILED, l2_bytes=4096)
    problem = matmul.product(C(bfloat16, (200, 64)), C(bfloat16, (64, n), True), C(float32, (200, n)))
    found = [s for s in FAMILY.schedules(problem, small) if "prefetchw" in FAMILY.render(problem, s, small).text]
    assert found and not any("prefetchw" in FAMILY.render(problem, s, FULL).text for s in FAMILY.schedules(problem, FULL))
    check(FAMILY, problem, small, found[:4], rtol=1e-5)


@pytest.mark.parametrize(("k", "pitch"), [(24, 24), (64, 64), (40, 100), (1, 1), (24, 1024)])
def test_rows_that_come_from_afar_are_asked_for(k, pitch):
    """The rows of the next tile, beyond the last one too; not where all rows fit the cache, nor where a sum has one step."""
    small = replace(FULL, l2_bytes=1024)
    a = Operand(float32, (301, k), (pitch, 1), False)
    problem = matmul.product(a, C(float32, (k, 40), True), C(float32, (301, 40)))
    asking = [s for s in FAMILY.schedules(problem, small) if "__builtin_prefetch(x" in FAMILY.render(problem, s, small).text]
    assert bool(asking) == (k > 1 and pitch < 1024)  # rows a page apart share their places in the cache
    assert not any("__builtin_prefetch(x" in FAMILY.render(problem, s, FULL).text for s in FAMILY.schedules(problem, FULL)[:4])
    check(FAMILY, problem, small, asking[:4], rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 8, 14])
def test_steps_ask_for_every_line_of_the_next_rows(rows):
    stride, steps = 100, 48
    (asked,) = tile.NextRows(rows, stride, 1, 4).ask
    place = asked.removeprefix("__builtin_prefetch(x + ").removesuffix(", 0, 3);").replace("/", "//")
    found = {eval(place, {"k0": k}) for k in range(steps)}
    assert {(rows + i) * stride + line for i in range(rows) for line in (0, 16, 32)} <= found
