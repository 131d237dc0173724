"""Ahead-of-time compilation without a GPU: the kernels of a small engine for three architectures, and the compiler's errors."""

import pytest

from redline import frontend, passes
from redline.base import dtypes
from redline.codegen.triton.compile import Cubin, Request, compile_cubins
from redline.kernels.gpu import GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
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


def test_what_does_not_compile_is_told_not_raised(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path))
    (complaint,) = compile_cubins([Request(BROKEN, ("*fp32", "*fp32"), (True, True), 4, 2, 90)])
    assert isinstance(complaint, str) and "nothing" in complaint
