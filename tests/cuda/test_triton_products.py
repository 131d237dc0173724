"""Matrix products and convolutions in Triton's interpreter against their references, at shapes that straddle the tiles."""

import numpy as np
import pytest
from cuda_kernel_check import PLAIN, check

from redline.base.dtypes import DType, bfloat16, float16, float32, int8, int32, uint8
from redline.kernels import tgemm
from redline.kernels.conv import problem as conv
from redline.kernels.expr import Acc, Expr, Load, call, cast, index, lit
from redline.kernels.gemm_schedule import Schedule
from redline.kernels.gpu import GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.matmul import problem as matmul
from redline.kernels.problem import Operand

dense = Operand.contiguous
SMALL, SPLIT = Schedule(16, 16, 32), Schedule(32, 32, 16, 4, 3, 2)


def biased(rank: int, dtype: DType) -> Expr:
    """relu(acc + bias[last coordinate])"""
    total = call("add", Acc(float32), cast(Load(dtype, 2, (index(rank - 1),)), float32))
    return cast(call("max", total, lit(0.0, float32)), dtype)


@pytest.mark.parametrize("schedule", [SMALL, SPLIT])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("batch, m, n, k", [((), 33, 48, 64), ((2,), 17, 40, 50), ((2, 3), 5, 16, 32), ((), 1, 40, 33)])
def test_matmul(batch, m, n, k, constant: bool, schedule: Schedule) -> None:
    out = dense(float16, (*batch, m, n))
    b = Operand(float16, (*batch, k, n), (0,) * len(batch) + (n, 1), True) if constant else dense(float16, (*batch, k, n))
    problem = matmul.Problem(dense(float16, (*batch, m, k)), b, out, biased(len(out.shape), float16), (dense(float16, (n,)),))
    check("matmul", problem, schedule, GPU_FAMILIES["matmul"])


@pytest.mark.parametrize("dtype, tolerance", [(float32, 1e-5), (float16, 2e-3), (bfloat16, 1e-2)])
def test_matmul_types(dtype: DType, tolerance: float) -> None:
    out = dense(dtype, (20, 24))
    problem = matmul.Problem(
        dense(dtype, (20, 40)), dense(dtype, (40, 24), True), out, biased(2, dtype), (dense(dtype, (24,)),)
    )
    check("matmul", problem, SMALL, GPU_FAMILIES["matmul"], tolerance=tolerance)


def test_matmul_with_batches_of_constants() -> None:
    out = dense(float16, (3, 20, 24))
    problem = matmul.Problem(
        dense(float16, (3, 20, 40)), dense(float16, (3, 40, 24), True), out, biased(3, float16), (dense(float16, (24,)),)
    )
    check("matmul", problem, SMALL, GPU_FAMILIES["matmul"])


def test_matmul_through_tensor_maps() -> None:
    b = Operand(float16, (2, 72, 48), (0, 48, 1), True)
    problem = matmul.Problem(
        dense(float16, (2, 35, 72)), b, dense(float16, (2, 35, 48)), biased(3, float16), (dense(float16, (48,)),)
    )
    code = check("matmul", problem, Schedule(64, 16, 32, 4, 3, 1, True), GPU_FAMILIES["matmul"])
    assert set(code.maps) == {0, 1}
    check("matmul", problem, Schedule(64, 16, 32, 4, 3, 2, True), GPU_FAMILIES["matmul"])


@pytest.mark.parametrize("engine", [False, True])
def test_the_last_tiles_are_shared(engine: bool) -> None:
    problem = matmul.Problem(
        dense(float16, (300, 256)), dense(float16, (256, 32), True), dense(float16, (300, 32)), biased(2, float16),
        (dense(float16, (32,)),),
    )  # fmt: skip
    code = check("matmul", problem, Schedule(64, 16, 32, 4, 3, 3, engine, 4), GPU_FAMILIES["matmul"])
    assert code.grid == (10 - 4 + 4 * 3, 1, 1)


@pytest.mark.parametrize(
    "shape, taps, strides, pads", [((5, 4), (3, 3), (1, 1), (1, 1, 1, 1)), ((5, 5), (1, 1), (2, 2), (0,) * 4)]
)
def test_conv_over_stacks_of_images(shape, taps, strides, pads) -> None:
    spatial = tuple((shape[a] + 2 * pads[a] - taps[a]) // strides[a] + 1 for a in range(2))
    problem = conv.Problem(
        dense(float16, (128, *shape, 32)), dense(float16, (24, 32, *taps), True), dense(float16, (128, *spatial, 24)),
        biased(4, float16), (dense(float16, (24,)),), strides, (1, 1), pads, 1,
    )  # fmt: skip
    assert any(s.copy_engine for s in GPU_FAMILIES["conv"].schedules(problem, GpuTarget()))
    code = check("conv", problem, Schedule(64, 16, 32, 4, 3, 1, True), GPU_FAMILIES["conv"])
    assert code.maps[0].box == (1, 1, 64, 32)


WAYS = [
    Schedule(64, 16, 32, 4, 3, 1, True, walkers=4),
    Schedule(64, 16, 32, 4, 3, 1, True, turned=True), Schedule(64, 16, 32, 4, 3, 1, True, walkers=2, turned=True),
]  # fmt: skip


@pytest.mark.parametrize("schedule", WAYS)
def test_ways_to_walk_over_tiles(schedule: Schedule) -> None:
    problem = matmul.Problem(
        dense(float16, (150, 72)), dense(float16, (72, 40), True), dense(float16, (150, 40)), biased(2, float16),
        (dense(float16, (40,)),),
    )  # fmt: skip
    check("matmul", problem, schedule, GPU_FAMILIES["matmul"])
    images = conv.Problem(
        dense(float16, (64, 3, 4, 32)), dense(float16, (24, 32, 3, 3), True), dense(float16, (64, 3, 4, 24)),
        biased(4, float16), (dense(float16, (24,)),), (1, 1), (1, 1), (1, 1, 1, 1), 1,
    )  # fmt: skip
    check("conv", images, schedule, GPU_FAMILIES["conv"])


def requantized(rank: int, dtype: DType) -> Expr:
    """clamp(rint(acc * scale[last coordinate])), as a QuantizeLinear has it"""
    value = call("mul", cast(Acc(int32), float32), Load(float32, 2, (index(rank - 1),)))
    low, high = (0.0, 255.0) if dtype == uint8 else (-128.0, 127.0)
    return cast(call("clamp", call("rint", value), lit(low, float32), lit(high, float32)), dtype)


@pytest.mark.parametrize("x, out", [(int8, int8), (uint8, int8), (uint8, uint8), (int8, float16)])
@pytest.mark.parametrize("schedule", [Schedule(16, 16, 32), Schedule(32, 32, 64, 4, 3, 2)])
def test_products_of_integers(x: DType, out: DType, schedule: Schedule) -> None:
    problem = matmul.Problem(
        dense(x, (33, 96)), dense(int8, (96, 40), True), dense(out, (33, 40)), finished(2, out), (dense(float32, (40,)),)
    )
    check("matmul", problem, schedule, GPU_FAMILIES["matmul"], tolerance=1e-3, highest=(-127, 127))
    images = conv.Problem(
        dense(x, (2, 5, 6, 32)), dense(int8, (24, 32, 3, 3), True), dense(out, (2, 5, 6, 24)), finished(4, out),
        (dense(float32, (24,)),), (1, 1), (1, 1), (1, 1, 1, 1), 1, 3,
    )  # fmt: skip
    check("conv", images, schedule, GPU_FAMILIES["conv"], tolerance=1e-3, highest=(-127, 127))


def finished(rank: int, out: DType) -> Expr:
    small = cast(call("mul", cast(Acc(int32), float32), lit(1e-3, float32)), out)
    return small if out.is_float else requantized(rank, out)


@pytest.mark.parametrize("way", range(4))
def test_integers_through_tensor_maps(way: int) -> None:
    schedule = [Schedule(64, 16, 32, 4, 3, 1, True), *WAYS][way]
    problem = matmul.Problem(
        dense(int8, (150, 96)), dense(int8, (96, 40), True), dense(int8, (150, 40)), finished(2, int8), (dense(float32, (40,)),)
    )
    code = check("matmul", problem, schedule, GPU_FAMILIES["matmul"], tolerance=1e-3, highest=(-127, 127))
    assert set(code.maps) == {0, 1}


CONVOLUTIONS = [  # x, w, strides, pads, groups, dilations
    ((2, 9, 9, 16), (24, 16, 3, 3), (1, 1), (1, 1, 1, 1), 1, (1, 1)),
    ((1, 8, 8, 8), (16, 8, 1, 1), (2, 2), (0, 0, 0, 0), 1, (1, 1)),
    ((1, 8, 8, 3), (16, 3, 3, 3), (2, 2), (1, 1, 1, 1), 1, (1, 1)),
    ((1, 8, 8, 32), (32, 16, 3, 3), (1, 1), (1, 1, 1, 1), 2, (1, 1)),
    ((2, 5, 5, 64), (32, 64, 1, 1), (1, 1), (0, 0, 0, 0), 1, (1, 1)),
    ((1, 9, 4, 16), (16, 16, 3, 2), (1, 1), (2, 0, 2, 1), 1, (2, 1)),
    ((1, 7, 7, 16), (16, 16, 7, 7), (1, 1), (0, 0, 0, 0), 1, (1, 1)),
    ((2, 11, 16), (20, 16, 3), (2,), (1, 1), 1, (1,)),
    ((1, 4, 5, 6, 16), (16, 16, 2, 3, 3), (1, 1, 1), (0, 1, 1, 1, 1, 1), 1, (1, 1, 1)),
]


@pytest.mark.parametrize("schedule", [Schedule(16, 16, 16), SPLIT])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("x, w, strides, pads, groups, dilations", CONVOLUTIONS)
def test_conv(x, w, strides, pads, groups, dilations, constant: bool, schedule: Schedule) -> None:
    rank = len(strides)
    spatial = tuple(
        (x[1 + a] + pads[a] + pads[rank + a] - (w[2 + a] - 1) * dilations[a] - 1) // strides[a] + 1 for a in range(rank)
    )
    out = dense(float16, (x[0], *spatial, w[0]))
    problem = conv.Problem(
        dense(float16, x), dense(float16, w, constant), out, biased(rank + 2, float16), (dense(float16, (w[0],)),), strides,
        dilations, pads, groups,
    )  # fmt: skip
    check("conv", problem, schedule, GPU_FAMILIES["conv"])


@pytest.mark.parametrize("dtype, pad", [(uint8, 5), (uint8, 200), (uint8, 255), (int8, -128)], ids=str)
@pytest.mark.parametrize("channels, groups", [(3, 1), (16, 1), (32, 2)])
def test_conv_of_padded_bytes(dtype, pad: int, channels: int, groups: int) -> None:
    """A literal with a leading bit is no padding of a load, for the compiler spreads it wrongly."""
    problem = conv.Problem(
        dense(dtype, (2, 7, 5, channels)), dense(int8, (16, channels // groups, 3, 3), True), dense(int32, (2, 7, 5, 16)),
        Acc(int32), (), (1, 1), (1, 1), (1, 1, 1, 1), groups, pad,
    )  # fmt: skip
    code = check("conv", problem, Schedule(16, 16, 32), GPU_FAMILIES["conv"], tolerance=1e-12, highest=(-128, 127))
    assert ("other=0" if pad != 5 else "other=5") in code.text


def test_rounding_to_tf32() -> None:
    values = np.array([1.0, 1 + 2**-11, -1 - 2**-11, 1 + 2**-12, np.inf, -np.inf, np.nan, 0.0, 3.1415927], np.float32)
    expected = np.array([1.0, 1 + 2**-10, -1 - 2**-10, 1.0, np.inf, -np.inf, np.nan, 0.0, 3.140625], np.float32)
    assert np.array_equal(tgemm.rounded(values), expected, equal_nan=True)


@pytest.mark.parametrize("arch", [80, 89, 90])
def test_schedules_fit_the_target(arch: int) -> None:
    target = GpuTarget(arch)
    problem = matmul.Problem(
        dense(float16, (4096, 768)), dense(float16, (768, 3072), True), dense(float16, (4096, 3072)), biased(2, float16),
        (dense(float16, (3072,)),),
    )  # fmt: skip
    found = [s for s in GPU_FAMILIES["matmul"].schedules(problem, target) if isinstance(s, Schedule)]
    assert len(found) > 16 and any(s.copy_engine for s in found) == (arch >= 90)
    assert all(s.num_stages * s.block_k * (s.block_m + s.block_n) * 2 <= target.shared_bytes for s in found)
    assert PLAIN.plain


def test_what_happens_before_the_wait() -> None:
    problem = matmul.Problem(
        dense(float16, (128, 768)), dense(float16, (768, 768), True), dense(float16, (128, 768)), biased(2, float16),
        (dense(float16, (768,)),),
    )  # fmt: skip
    render = GPU_FAMILIES["matmul"].render
    order = ("prefetch", "gdc_wait", "gdc_launch_dependents", "tl.dot")
    late = render(problem, Schedule(64, 32, 64), GpuTarget()).text
    assert sorted(order, key=late.index) == list(order)
    early = render(problem, Schedule(64, 32, 64), GpuTarget(eager=True)).text
    assert early.index("gdc_launch_dependents") < early.index("prefetch") < early.index("gdc_wait")
    assert "prefetch" not in render(problem, Schedule(64, 32, 64, copy_engine=True), GpuTarget()).text
    assert "gdc" not in render(problem, Schedule(64, 32, 64), GpuTarget(80, overlap=False)).text


@pytest.mark.parametrize("walkers", [0, 2])
@pytest.mark.parametrize("dtype", [float16, int8], ids=str)
def test_parts_of_rows_share_a_tile(dtype, walkers: int) -> None:
    """192 rows are three parts of 64; 400 leave some of the last tile out."""
    acc = int32 if dtype == int8 else float32
    problem = matmul.Problem(
        dense(dtype, (400, 96)), dense(dtype, (96, 160), True), dense(acc, (400, 160)),
        call("add", Acc(acc), Load(acc, 2, (index(1),))), (dense(acc, (160,)),),
    )  # fmt: skip
    schedule = Schedule(192, 128, 32, 8, 3, 1, True, walkers=walkers)
    code = check("matmul", problem, schedule, GPU_FAMILIES["matmul"], tolerance=1e-5)
    assert code.maps[0].box == (64, 32) and "acc2" in code.text
    images = conv.Problem(
        dense(dtype, (4, 10, 10, 32)), dense(dtype, (64, 32, 1, 1), True), dense(acc, (4, 10, 10, 64)), Acc(acc), (),
        (1, 1), (1, 1), (0, 0, 0, 0), 1,
    )  # fmt: skip
    check("conv", images, schedule, GPU_FAMILIES["conv"], tolerance=1e-5)
