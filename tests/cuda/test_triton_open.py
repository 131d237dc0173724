"""Kernels of open extents in Triton's interpreter against their references, at shapes that straddle the tiles."""

import pytest
from cuda_kernel_check import check
from fake_driver import as_cubins

import redline.tune.cuda as tuning
from redline.base.dtypes import float16, float32
from redline.base.extents import most_where, triton_dimension
from redline.base.shapes import contiguous_strides
from redline.kernels import attention, row
from redline.kernels.attention import triton as attending
from redline.kernels.expr import Acc, Load, call, cast, coordinates, index, integer, lit
from redline.kernels.gemm_schedule import Schedule
from redline.kernels.gpu import GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.matmul import problem as matmul
from redline.kernels.problem import Operand
from redline.kernels.row import triton as rows
from redline.tune.cache import TimingCache
from redline.tune.cuda import MAX_OPEN_WORKSPACE, GpuJob, choose

dense = Operand.contiguous
B, S = triton_dimension(0, 1, 4, 2), triton_dimension(1, 1, 70, 16)
SCHEDULES = [
    Schedule(16, 16, 32), Schedule(32, 32, 16, 4, 3, 2), Schedule(64, 16, 32, 4, 3, 1, True),
    Schedule(64, 16, 32, 4, 3, 2, True), Schedule(16, 16, 32, walkers=3),
    Schedule(192, 16, 32, 4, 3, 1, True), Schedule(32, 16, 32, turned=True),
]  # fmt: skip


def projection(first, out) -> matmul.Problem:
    """relu(x @ w + bias) + rest for [batch, length, 72] with a matrix of constants."""
    b = Operand(float16, (first[0], 72, 48), (0, 48, 1), True)
    total = call("add", Acc(float32), cast(Load(float16, 2, (index(2),)), float32))
    total = call("add", call("max", total, lit(0.0, float32)), cast(Load(float16, 3, coordinates(3)), float32))
    extra = (dense(float16, (48,)), out)
    return matmul.Problem(Operand(float16, (*first, 72), contiguous_strides((*first, 72))), b, out, cast(total, float16), extra)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_product_of_open_rows(schedule: Schedule) -> None:
    for dims in [(1, 1), (3, 23)]:
        code = check("matmul", projection((B, S), dense(float16, (B, S, 48))), schedule, GPU_FAMILIES["matmul"], dims=dims)
        assert code.dims == (0, 1)


def test_rows_that_do_not_follow_each_other() -> None:
    """The result lies in the middle of a larger array."""
    out = Operand(float16, (B, S, 48), ((S + 3) * 64, 64, 1))
    for dims in [(1, 1), (2, 33)]:
        check("matmul", projection((B, S), out), SCHEDULES[1], GPU_FAMILIES["matmul"], dims=dims)


def test_products_of_open_batches_columns_and_depths() -> None:
    """Scores and values of attention that is written out."""
    q, k = dense(float16, (B, S, 24)), Operand(float16, (B, 24, S), (S * 24, 1, 24))
    scores = matmul.Problem(q, k, dense(float16, (B, S, S)), cast(Acc(float32), float16))
    p, v = dense(float16, (B, S, S)), dense(float16, (B, S, 24))
    values = matmul.Problem(p, v, dense(float16, (B, S, 24)), cast(Acc(float32), float16))
    for problem in (scores, values):
        for dims in [(1, 1), (3, 37)]:
            check("matmul", problem, SCHEDULES[0], GPU_FAMILIES["matmul"], dims=dims)


@pytest.mark.parametrize("keys, causal", [(16, None), (32, None), (16, 0)])
def test_attention_of_open_lengths(keys: int, causal) -> None:
    reads = [dense(float16, (B, 2, S, 20)) for _ in range(3)]
    mask = Operand(float32, (B, S), (S, 1))
    score = call("add", attention.problem.scaled(0.2), Load(float32, 3, (index(0), index(3))))
    for dims in [(1, 1), (3, 16), (2, 37)]:
        problem = attention.Problem((*reads, mask), dense(float16, (B, 2, S, 20)), score, causal)
        check("attention", problem, attending.Schedule(16, keys), GPU_FAMILIES["attention"], dims=dims)


@pytest.mark.parametrize("kind", ["softmax", "layer_norm"])
def test_rows_of_open_length(kind: str) -> None:
    x = dense(float32, (B, S))
    for dims in [(1, 1), (3, 33), (4, 70)]:
        problem = row.Problem(kind, (x,), (x,), Load(float32, 0, coordinates(2)), Acc(float32), 1e-5)
        check("row", problem, rows.Schedule(2, 4), GPU_FAMILIES["row"], dims=dims)


def test_a_literal_that_the_shape_decides() -> None:
    x = dense(float32, (B, S))
    share = call("div", Load(float32, 0, coordinates(2)), cast(integer(S * 2), float32))
    problem = row.Problem("softmax", (x,), (x,), share, Acc(float32))
    check("row", problem, rows.Schedule(1, 4), GPU_FAMILIES["row"], dims=(2, 9))


def test_sums_are_shared_only_where_their_parts_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small band takes a split sum, the whole range has no room for it; both have a first choice."""
    monkeypatch.setattr(tuning, "compile_cubins", as_cubins)
    depth = 4096
    b = Operand(float16, (B * 1000, depth, 48), (0, 48, 1), True)
    out = dense(float16, (B * 1000, S, 48))
    problem = matmul.Problem(dense(float16, (B * 1000, S, depth)), b, out, cast(Acc(float32), float16))
    small, whole = (GpuJob("matmul", problem, (True,) * 3).tuned_at((1, 1), most) for most in (1, 280))
    picked = [choose([job], GpuTarget(), 0, TimingCache(""), None, lambda *a: None)[job] for job in (small, whole)]
    assert [choice.schedule.split > 1 for choice in picked] == [True, False]
    assert most_where(picked[0].code.workspace_bytes, 1) <= MAX_OPEN_WORKSPACE
