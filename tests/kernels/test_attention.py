"""Attention against numpy: lengths that straddle vectors and blocks, merged buffers, masks, types, special values."""

import harness
import numpy as np
import pytest

from redline.base.dtypes import DType, bfloat16, bool_, float16, float32, float64
from redline.base.errors import RedlineError
from redline.kernels import attention
from redline.kernels.attention import Problem, Schedule, scaled
from redline.kernels.expr import Acc, Expr, Load, call, coordinates, index, lit
from redline.kernels.problem import Operand

TARGET = harness.TARGETS["avx512"]


def problem(
    b: int, h: int, q: int, k: int, d: int, dv: int = 0, kv_heads: int = 0, dtype: DType = float32,
    score: Expr | None = None, extra: tuple[Operand, ...] = (), causal: int | None = None,
) -> Problem:  # fmt: skip
    kv_heads, dv = kv_heads or h, dv or d
    shapes = [(b, h, q, d), (b, kv_heads, k, d), (b, kv_heads, k, dv)]
    reads = tuple(Operand.contiguous(dtype, shape) for shape in shapes)
    out = Operand.contiguous(dtype, (b, h, q, dv))
    return Problem((*reads, *extra), out, score or scaled(d**-0.5, dtype), causal)


def check(problem: Problem, every: bool = False, **options: object) -> None:
    candidates = list(attention.FAMILY.schedules(problem, TARGET))
    options.setdefault("rtol", 3e-6)
    harness.check(attention.FAMILY, problem, TARGET, candidates if every else candidates[:2], **options)


@pytest.mark.parametrize("q", [1, 15, 16, 17, 33, 64, 65, 197])
def test_query_lengths(q: int) -> None:
    check(problem(1, 2, q, 20, 16))


@pytest.mark.parametrize("k", [1, 7, 33, 128, 513, 1100])
def test_key_lengths(k: int) -> None:
    check(problem(1, 2, 18, k, 32))


@pytest.mark.parametrize(("d", "dv"), [(1, 1), (8, 8), (40, 40), (64, 80), (80, 64), (128, 144)])
def test_depths(d: int, dv: int) -> None:
    check(problem(2, 1, 37, 50, d, dv), every=d == 64)


def test_every_schedule() -> None:
    check(problem(2, 3, 70, 90, 48), every=True)


def test_merged_buffer_of_queries_keys_and_values() -> None:
    b, h, s, d = 2, 3, 40, 16
    strides = (s * 3 * h * d, d, 3 * h * d, 1)
    reads = tuple(Operand(float32, (b, h, s, d), strides) for _ in range(3))
    out = Operand(float32, (b, h, s, d), (s * h * d, d, h * d, 1))
    check(Problem(reads, out, scaled(0.25)), every=True)


def test_transposed_keys_and_values() -> None:
    turned = Operand(float32, (1, 2, 30, 24), (2 * 30 * 24, 30 * 24, 1, 30))
    check(Problem((turned, turned, turned), turned, scaled(0.2)), every=True)


def test_grouped_queries() -> None:
    check(problem(2, 6, 20, 30, 16, kv_heads=2), every=True)


@pytest.mark.parametrize("dtype", [float64, float16, bfloat16], ids=str)
def test_types(dtype: DType) -> None:
    check(problem(1, 2, 33, 40, 24, dtype=dtype), rtol={float16: 1e-3, bfloat16: 1e-2}.get(dtype, 1e-12))


@pytest.mark.parametrize("keys", [8, 32])
@pytest.mark.parametrize("offset", [0, 20, -3])
def test_causal(offset: int, keys: int) -> None:
    made = problem(1, 2, 50, 70, 16, causal=offset)
    harness.check(attention.FAMILY, made, TARGET, [Schedule(2, keys, True, 3)], rtol=3e-6)


def test_additive_and_boolean_masks() -> None:
    b, h, q, k = 2, 3, 20, 37
    added = Operand(float32, (b, h, q, k), (k, 0, 0, 1))
    score = call("add", scaled(0.3), Load(float32, 3, coordinates(4)))
    check(problem(b, h, q, k, 16, score=score, extra=(added,)))
    chosen = Operand(bool_, (b, h, q, k), (0, q * k, k, 1))
    score = call("where", Load(bool_, 3, coordinates(4)), scaled(0.3), lit(-np.inf, float32))
    arrays = harness.random_arrays(problem(b, h, q, k, 16, score=score, extra=(chosen,)).reads)
    mask = np.random.default_rng(3).random((h, q, k)) < 0.5
    mask[..., 0] = True
    arrays[3] = np.broadcast_to(mask, (b, h, q, k))
    check(problem(b, h, q, k, 16, score=score, extra=(chosen,)), arrays=arrays)


def test_first_block_masked_out() -> None:
    score = call("where", call("ge", index(3), lit(12, index(3).dtype), dtype=bool_), scaled(0.3), lit(-np.inf, float32))
    harness.check(attention.FAMILY, problem(1, 1, 9, 24, 8, score=score), TARGET, [Schedule(1, 8, True)], rtol=3e-6)


def test_soft_cap() -> None:
    capped = call("mul", call("tanh", call("mul", Acc(float32), lit(0.05, float32))), lit(20.0, float32))
    check(problem(1, 2, 17, 33, 16, score=capped))


def test_special_values() -> None:
    made = problem(1, 2, 20, 30, 16)
    arrays = [array.copy() for array in harness.random_arrays(made.reads)]
    arrays[0][0, 0, 3, 5], arrays[0][0, 0, 4] = np.nan, 1e4
    arrays[2][0, 1, 7, 2] = np.inf
    check(made, arrays=arrays)
    masked = call("add", Acc(float32), lit(-np.inf, float32))
    check(problem(1, 1, 4, 5, 8, score=masked))  # no score is above -inf: zeros


@pytest.mark.parametrize("name", ["avx2", "generic"])
def test_other_targets(name: str) -> None:
    made = problem(1, 2, 37, 40, 24, dv=20)
    harness.check(attention.FAMILY, made, harness.TARGETS[name], rtol=3e-6)


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_no_queries(shape: tuple[int, int, int]) -> None:
    check(problem(*shape, 5, 8))


def test_errors_say_what_is_wrong() -> None:
    good = problem(1, 2, 3, 4, 8)
    with pytest.raises(RedlineError, match="do not fit together"):
        Problem(good.reads, Operand.contiguous(float32, (1, 2, 4, 8)), good.score)
    with pytest.raises(RedlineError, match="allowed: query, key, value, out of rank 4"):
        Problem(good.reads[:2], good.out, good.score)
    with pytest.raises(RedlineError, match="a score of type float64; it must be float32"):
        Problem(good.reads, good.out, scaled(1.0, float64))
    mixed = (*good.reads[:2], Operand.contiguous(float16, (1, 2, 4, 8)))
    with pytest.raises(RedlineError, match="query, key and value have one floating type"):
        Problem(mixed, good.out, good.score)


# The instruction that sums pairs of products.


def check_pairs(problem: Problem, **options: object) -> None:
    candidates = list(attention.FAMILY.schedules(problem, harness.FULL))
    assert {schedule.dot for schedule in candidates} == {"bf16"}
    harness.check(attention.FAMILY, problem, harness.FULL, candidates, rtol=1e-2, **options)


@pytest.mark.parametrize(("q", "k"), [(1, 1), (15, 16), (17, 33), (64, 31), (40, 128)])
@pytest.mark.parametrize(("d", "dv"), [(2, 1), (32, 40), (64, 64)])
def test_pairs(q: int, k: int, d: int, dv: int) -> None:
    check_pairs(problem(1, 2, q, k, d, dv, dtype=bfloat16))


@pytest.mark.parametrize("keys", [7, 32])
@pytest.mark.parametrize("causal", [None, 0, 20, -3])
def test_pairs_in_several_blocks_of_keys(keys: int, causal: int | None) -> None:
    made = problem(1, 2, 50, 71, 16, dtype=bfloat16, causal=causal)
    harness.check(attention.FAMILY, made, harness.FULL, [Schedule(2, keys, True, 3, "bf16")], rtol=1e-2)


def test_pairs_in_a_merged_buffer_with_a_mask_and_shared_keys() -> None:
    b, h, s, d = 2, 4, 37, 32
    strides = (s * 3 * h * d, d, 3 * h * d, 1)
    query = Operand(bfloat16, (b, h, s, d), strides)
    shared = Operand(bfloat16, (b, 2, s, d), strides)
    added = Operand(float32, (b, h, s, s), (s, 0, 0, 1))
    score = call("add", scaled(0.3), Load(float32, 3, coordinates(4)))
    check_pairs(Problem((query, shared, shared, added), Operand.contiguous(bfloat16, (b, h, s, d)), score))


def test_pairs_of_special_values() -> None:
    made = problem(1, 1, 20, 35, 32, dtype=bfloat16)
    arrays = [array.copy() for array in harness.random_arrays(made.reads)]
    arrays[0][0, 0, 3, 5] = np.nan
    arrays[0][0, 0, 4] = 300.0  # scores of several hundred: powers from 0 to 1
    arrays[2][0, 0, 7, 2] = np.nan
    check_pairs(made, arrays=arrays)


def test_pairs_without_any_key() -> None:
    score = call("where", Load(bool_, 3, coordinates(4)), scaled(0.3), lit(-np.inf, float32))
    mask = Operand(bool_, (1, 1, 18, 9), (0, 0, 9, 1))
    made = problem(1, 1, 18, 9, 8, dtype=bfloat16, score=score, extra=(mask,))
    arrays = [array.copy() for array in harness.random_arrays(made.reads)]
    arrays[3] = np.arange(18 * 9).reshape(1, 1, 18, 9) // 9 % 3 > 0
    check_pairs(made, arrays=arrays)


def test_pairs_need_neighbours() -> None:
    odd = problem(1, 1, 20, 30, 15, dtype=bfloat16)
    assert {schedule.dot for schedule in attention.FAMILY.schedules(odd, harness.FULL)} == {""}
    harness.check(attention.FAMILY, odd, harness.FULL, attention.FAMILY.schedules(odd, harness.FULL), rtol=1e-2)


# The matrix unit.


def check_tiles(problem: Problem, **options: object) -> None:
    candidates = [s for s in attention.FAMILY.schedules(problem, harness.TILED) if s.dot == "amx-bf16"]
    assert candidates
    harness.check(attention.FAMILY, problem, harness.TILED, candidates, rtol=1e-2, **options)


@harness.needs_tiles
@pytest.mark.parametrize(("q", "k"), [(1, 1), (15, 16), (17, 33), (64, 31), (40, 128), (80, 197), (50, 600)])
@pytest.mark.parametrize(("d", "dv"), [(2, 1), (32, 40), (64, 64), (80, 96)])
def test_tiles(q: int, k: int, d: int, dv: int) -> None:
    check_tiles(problem(1, 2, q, k, d, dv, dtype=bfloat16))


@harness.needs_tiles
@pytest.mark.parametrize("keys", [7, 32, 48])
@pytest.mark.parametrize("causal", [None, 0, 20, -3])
def test_tiles_in_several_blocks_of_keys(keys: int, causal: int | None) -> None:
    made = problem(1, 2, 50, 71, 16, dtype=bfloat16, causal=causal)
    harness.check(attention.FAMILY, made, harness.TILED, [Schedule(2, keys, True, 3, "amx-bf16")], rtol=1e-2)


@harness.needs_tiles
def test_tiles_in_a_merged_buffer_with_masks_and_shared_keys() -> None:
    b, h, s, d = 2, 4, 37, 32
    strides = (s * 3 * h * d, d, 3 * h * d, 1)
    query, shared = Operand(bfloat16, (b, h, s, d), strides), Operand(bfloat16, (b, 2, s, d), strides)
    out = Operand(bfloat16, (b, h, s, d), (s * h * d, d, h * d, 1))
    for kind in ((s, 0, 0, 1), (0, s * s, s, 1)):  # one row for all queries, and one for each
        added = Operand(float32, (b, h, s, s), kind)
        score = call("add", scaled(0.3), Load(float32, 3, coordinates(4)))
        check_tiles(Problem((query, shared, shared, added), out, score))


@harness.needs_tiles
def test_tiles_of_other_results_and_transposed_values() -> None:
    reads = (
        *(Operand.contiguous(bfloat16, (1, 2, 37, 32)),) * 2,
        Operand(bfloat16, (1, 2, 37, 48), (37 * 48 * 2, 37 * 48, 1, 37)),
    )
    for dtype, strides in (
        (float32, (37 * 96, 37 * 48, 48, 1)),
        (bfloat16, (37 * 96, 37 * 48, 1, 37)),
        (bfloat16, (37 * 98, 49, 98, 1)),
    ):
        check_tiles(Problem(reads, Operand(dtype, (1, 2, 37, 48), strides), scaled(0.2)))


@harness.needs_tiles
def test_tiles_of_special_values() -> None:
    made = problem(1, 1, 20, 35, 32, dtype=bfloat16)
    arrays = [array.copy() for array in harness.random_arrays(made.reads)]
    arrays[0][0, 0, 3, 5] = np.nan
    arrays[0][0, 0, 4] = 300.0  # scores of several hundred: powers from 0 to 1
    arrays[2][0, 0, 7, 2] = np.nan
    check_tiles(made, arrays=arrays)


@harness.needs_tiles
def test_tiles_without_any_key() -> None:
    score = call("where", Load(bool_, 3, coordinates(4)), scaled(0.3), lit(-np.inf, float32))
    mask = Operand(bool_, (1, 1, 18, 9), (0, 0, 9, 1))
    made = problem(1, 1, 18, 9, 8, dtype=bfloat16, score=score, extra=(mask,))
    arrays = [array.copy() for array in harness.random_arrays(made.reads)]
    arrays[3] = np.arange(18 * 9).reshape(1, 1, 18, 9) // 9 % 3 > 0
    check_tiles(made, arrays=arrays)


@harness.needs_tiles
def test_tiles_need_whole_steps() -> None:
    odd = problem(1, 1, 20, 30, 74, dtype=bfloat16)
    assert {schedule.dot for schedule in attention.FAMILY.schedules(odd, harness.TILED)} == {"bf16"}


def test_attention_in_float32_splits_no_factors() -> None:
    plain = problem(1, 2, 20, 30, 64)
    for target, _ in harness.SPLIT.values():
        assert {schedule.dot for schedule in attention.FAMILY.schedules(plain, target)} == {""}
