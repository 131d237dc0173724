"""Ahead-of-time compilation without a GPU: the kernels of a small engine for three architectures, and the compiler's errors."""

import pytest

from redline import frontend, passes
from redline.base import dtypes
from redline.codegen.triton.compile import Cubin, Request, compile_cubins
from redline.kernels.conv import problem as conv
from redline.kernels.expr import Acc
from redline.kernels.gemm_schedule import Schedule
from redline.kernels.gpu import GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.matmul import problem as matmul
from redline.kernels.problem import Operand
from redline.lower import images, lower

BROKEN = "import triton\nimport triton.language as tl\n\n@triton.jit\ndef KERNEL(arg0, out0):\n    tl.store(out0, nothing)\n"


@pytest.mark.parametrize("arch", [80, 89, 90])
def test_the_digits_model_compiles(arch: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path))
    graph = passes.optimize(frontend.load("models/digits.onnx", shapes={"image": (4, 1, 8, 8)}, freeze={}))
    target = GpuTarget(arch, overlap=arch >= 90)
    requests = []
    for step in images.rewrite(lower(graph, dtypes.float16)).steps:
        family = GPU_FAMILIES[step.family]
        code = family.render(step.problem, family.schedules(step.problem, target)[0], target)
        requests.append(Request.of(code, [True] * (len(step.reads) + len(step.writes)), target))
    found = compile_cubins(requests)
    assert all(isinstance(cubin, Cubin) and cubin.code.startswith(b"\x7fELF") for cubin in found), found
    assert compile_cubins(requests) == found  # from the cache


def test_the_forms_of_a_product_compile(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights asked for before the wait, the last tiles shared, stacks of images, factors rounded to TF32."""
    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path))
    dense, target = Operand.contiguous, GpuTarget(90)
    half = matmul.Problem(
        dense(dtypes.float16, (300, 256)),
        dense(dtypes.float16, (256, 64), True),
        dense(dtypes.float32, (300, 64)),
        Acc(dtypes.float32),
    )
    single = matmul.Problem(
        dense(dtypes.float32, (64, 64)),
        dense(dtypes.float32, (64, 64), True),
        dense(dtypes.float32, (64, 64)),
        Acc(dtypes.float32),
    )
    whole = matmul.Problem(
        dense(dtypes.int8, (300, 256)),
        dense(dtypes.int8, (256, 64), True),
        dense(dtypes.int32, (300, 64)),
        Acc(dtypes.int32),
    )
    images_of = conv.Problem(
        dense(dtypes.float16, (64, 7, 7, 64)), dense(dtypes.float16, (64, 64, 3, 3), True),
        dense(dtypes.float32, (64, 7, 7, 64)),
        Acc(dtypes.float32), (), (1, 1), (1, 1), (1, 1, 1, 1), 1,
    )  # fmt: skip
    requests = []
    for family, problem, schedule in (
        ("matmul", half, Schedule(64, 16, 64, 4, 3, 2)),
        ("matmul", half, Schedule(64, 16, 64, 4, 3, 3, True, 4)),
        ("matmul", half, Schedule(64, 64, 64, 4, 3, 1, True, walkers=4)),
        ("matmul", half, Schedule(64, 64, 64, 4, 3, 1, True, turned=True)),
        ("matmul", whole, Schedule(64, 64, 64, 4, 3, 1, True)),
        ("matmul", single, Schedule(64, 32, 32)),
        ("conv", images_of, Schedule(64, 64, 64, copy_engine=True)),
    ):
        code = GPU_FAMILIES[family].render(problem, schedule, target)
        requests.append(Request.of(code, [True] * (len(problem.reads) + 1), target))
    found = compile_cubins(requests)
    assert all(isinstance(cubin, Cubin) for cubin in found), found
    assert [len(cubin.maps) for cubin in found if isinstance(cubin, Cubin)] == [0, 2, 2, 2, 2, 0, 2]


def test_what_does_not_compile_is_told_not_raised(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path))
    (complaint,) = compile_cubins([Request(BROKEN, ("*fp32", "*fp32"), (True, True), 4, 2, 90)])
    assert isinstance(complaint, str) and "nothing" in complaint
