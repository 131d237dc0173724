"""Products of floats of 8 bits in Triton's interpreter against their references, and what compiles for which GPU."""

import numpy as np
import pytest
from cuda_kernel_check import check

from redline.base.dtypes import DType, float8_e4m3fn, float16, float32
from redline.codegen.triton.compile import Cubin, Request, compile_cubins
from redline.kernels import nest
from redline.kernels.conv import problem as conv
from redline.kernels.expr import Acc, Expr, Load, call, cast, coordinates, index
from redline.kernels.gemm_schedule import Schedule
from redline.kernels.gpu import GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.matmul import problem as matmul
from redline.kernels.problem import Operand

dense, F8 = Operand.contiguous, float8_e4m3fn


def scaled(rank: int, out: DType) -> Expr:
    """acc * scale[last coordinate], as a QuantizeLinear or a DequantizeLinear has it"""
    return cast(call("mul", Acc(float32), Load(float32, 2, (index(rank - 1),))), out)


def product(m: int, k: int, n: int, out: DType) -> matmul.Problem:
    return matmul.Problem(
        dense(F8, (m, k)), dense(F8, (k, n), True), dense(out, (m, n)), scaled(2, out), (dense(float32, (n,)),)
    )


def images(count: int, channels: int, out: DType, groups: int = 1) -> conv.Problem:
    return conv.Problem(
        dense(F8, (count, 5, 4, channels)), dense(F8, (24, channels // groups, 3, 3), True), dense(out, (count, 5, 4, 24)),
        scaled(4, out), (dense(float32, (24,)),), (1, 1), (1, 1), (1, 1, 1, 1), groups,
    )  # fmt: skip


@pytest.mark.parametrize("out", [F8, float16, float32])
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(16, 16, 32), Schedule(32, 32, 64, 4, 3, 2), Schedule(64, 16, 32, 4, 3, 1, True),
        Schedule(64, 16, 32, 4, 3, 1, True, turned=True), Schedule(64, 16, 32, 4, 3, 1, True, walkers=2),
    ],
)  # fmt: skip
def test_products(out: DType, schedule: Schedule) -> None:
    """Up to sums in another order, which move what lies between two float8 to the other one."""
    check("matmul", product(70, 96, 40, out), schedule, GPU_FAMILIES["matmul"], tolerance=2e-2 if out == F8 else 5e-4)


def test_a_depth_that_ends_within_a_step() -> None:
    check("matmul", product(33, 50, 16, float32), Schedule(16, 16, 32), GPU_FAMILIES["matmul"], tolerance=1e-5)


@pytest.mark.parametrize("schedule", [Schedule(16, 16, 32), Schedule(64, 16, 32, 4, 3, 1, True)])
def test_convolutions(schedule: Schedule) -> None:
    check("conv", images(64, 32, float16), schedule, GPU_FAMILIES["conv"], tolerance=5e-4)


@pytest.mark.parametrize(("channels", "groups"), [(48, 1), (24, 2)])
def test_convolutions_whose_steps_hold_several_taps(channels: int, groups: int) -> None:
    check("conv", images(2, channels, F8, groups), Schedule(16, 16, 32), GPU_FAMILIES["conv"], tolerance=2e-2)


def test_rounding_goes_to_the_nearest_and_saturates() -> None:
    """Halves to even, beyond 448 the largest, below 2^-10 nothing, NaN as it is."""
    values = np.array(
        [0, -0.0, 17, 19, 21, 448, 449, 1e9, -1e9, np.inf, -np.inf, np.nan, 2**-9, 2**-10, 1.6e-3, -3e-3], np.float32
    )
    problem = nest.Problem((dense(float32, (16,)),), (dense(F8, (16,)),), (cast(Load(float32, 0, coordinates(1)), F8),))
    (wanted,) = nest.reference(problem, [values])
    seen = wanted.astype(np.float32)
    assert list(seen[2:11]) == [16, 20, 20, 448, 448, 448, -448, 448, -448] and np.isnan(seen[11])
    check("nest", problem, GPU_FAMILIES["nest"].schedules(problem, GpuTarget())[0], GPU_FAMILIES["nest"], arrays=[values])


@pytest.mark.parametrize("arch", [89, 90])
def test_forms_compile(arch: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path))
    target, requests = GpuTarget(arch, overlap=arch >= 90), []
    for family, problem, schedule in (
        ("matmul", product(300, 250, 64, F8), Schedule(64, 64, 64)),
        ("matmul", product(300, 256, 64, F8), Schedule(64, 64, 64, 4, 3, 1, True)),
        ("matmul", product(300, 256, 64, float16), Schedule(128, 64, 128, 4, 3, 1, True, walkers=2, turned=True)),
        ("conv", images(64, 64, F8), Schedule(64, 32, 64, 4, 3, 1, True)),
        ("conv", images(2, 48, F8), Schedule(64, 32, 32)),
    ):
        if not schedule.copy_engine or target.has_copy_engine:
            code = GPU_FAMILIES[family].render(problem, schedule, target)
            requests.append(Request.of(code, [True] * (len(problem.reads) + 1), target))
    found = compile_cubins(requests)
    assert all(isinstance(cubin, Cubin) for cubin in found), found
