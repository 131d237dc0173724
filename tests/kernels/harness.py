"""Runs one kernel alone, through the compiler, on operands of any strides, and compares it with its reference."""

import ctypes
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from redline.base import cpu
from redline.codegen.c import compile as c_compile
from redline.codegen.c import isa, link, toolchain
from redline.kernels.problem import CpuTarget, Family, KernelCode, Operand

TARGETS = {name: isa.target(name, num_threads=2) for name in ("avx512", "avx2", "generic")}
FULL = isa.target("avx512+bf16+vnni", num_threads=2)  # with the instructions that sum several products at once
TILED = isa.target("avx512+amx+bf16+vnni", num_threads=2)  # and those of the matrix unit
SPLIT = {  # and where factors of float32 may be split, by how; with the error of the largest answer
    "bf16x3": (isa.target("avx512+amx+bf16+bf16x3+vnni", num_threads=2), 2e-5),
    "bf16x6": (isa.target("avx512+amx+bf16+bf16x6+vnni", num_threads=2), 5e-7),
}
needs_tiles = pytest.mark.skipif(not isa.needs(TILED) <= cpu.features(), reason="needs a processor with a matrix unit (AMX)")
GROUPING = [pytest.param(FULL, id="vectors"), pytest.param(TILED, id="tiles", marks=needs_tiles)]
GUARD = 64  # elements around an operand that a kernel must not write


def buffer(operand: Operand, values: np.ndarray | None = None) -> np.ndarray:
    """A view of the operand's shape and strides into fresh memory, holding ``values``."""
    extent = 1 + sum((e - 1) * s for e, s in zip(operand.shape, operand.strides, strict=True) if e > 1)
    memory = np.full(max(extent, 1) + 2 * GUARD, 77, dtype=operand.dtype.numpy)[GUARD:]
    view = np.lib.stride_tricks.as_strided(memory, operand.shape, [s * operand.dtype.size for s in operand.strides])
    if values is not None:
        view[...] = values
    return view


def random_arrays(reads: Sequence[Operand], seed: int = 0) -> list[np.ndarray]:
    """Values for the read operands: normal floats, small integers; broadcast axes repeat."""
    rng = np.random.default_rng(seed)
    arrays = []
    for operand in reads:
        shape = [1 if s == 0 else e for e, s in zip(operand.shape, operand.strides, strict=True)]
        low = 0 if operand.dtype.kind in "ub" else -9
        values = rng.standard_normal(shape) if operand.dtype.is_float else rng.integers(low, 10, shape)
        arrays.append(np.broadcast_to(values.astype(operand.dtype.numpy), operand.shape))
    return arrays


def permit(target: CpuTarget) -> None:
    """Asks the system for the matrix unit, as rl_permit of executor.h does, where the target has one."""
    if "amx" in target.features:
        assert ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0, "the system does not give the matrix unit"


def load(code: KernelCode, target: CpuTarget) -> Any:
    """The compiled kernel as a ctypes function."""
    tools = toolchain.find()
    text = c_compile.source(code).replace("void KERNEL", '__attribute__((visibility("default"))) void KERNEL')
    library = link.link([c_compile.compile_one(text, target, tools)], tools)
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(library)
        file.flush()
        function = getattr(ctypes.CDLL(file.name, mode=os.RTLD_LOCAL), code.symbol)
    permit(target)
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    return function


def run(family: Family, problem: Any, schedule: Any, target: CpuTarget, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The written arrays. Chunks run backwards, with dirty scratch, because their order must not matter."""
    code = family.render(problem, schedule, target)
    held = [buffer(operand, array) for operand, array in zip(problem.reads, arrays, strict=True)]
    for index, packing in code.packings.items():
        held[index] = np.ascontiguousarray(packing.apply(arrays[index]))
    written = [buffer(operand) for operand in problem.writes]
    pointers = (ctypes.c_void_p * (len(held) + len(written)))(*[a.ctypes.data for a in (*held, *written)])
    scratch = np.full(code.scratch_bytes + 128, 0xFF, np.uint8)
    function = load(code, target)
    for chunk in reversed(range(code.num_chunks)):
        scratch[:] = 0xFF
        function(pointers, scratch.ctypes.data + (-scratch.ctypes.data % 64), chunk)
    assert (scratch[code.scratch_bytes + 64 :] == 0xFF).all() or code.scratch_bytes == 0, "a kernel wrote beyond its scratch"
    return written


def check(
    family: Family, problem: Any, target: CpuTarget, schedules: Sequence[Any] | None = None, *,
    arrays: Sequence[np.ndarray] | None = None, rtol: float = 1e-5,
) -> None:  # fmt: skip
    """Asserts that each schedule (the first candidate, if none is given) gives what the reference gives.

    ``rtol`` bounds the largest difference by the largest magnitude of the answer; infinities and NaN must agree.
    """
    arrays = random_arrays(problem.reads) if arrays is None else arrays
    expected = family.reference(problem, arrays)
    for schedule in schedules or family.schedules(problem, target)[:1]:
        for got, want in zip(run(family, problem, schedule, target, arrays), expected, strict=True):
            assert_close(got, want, rtol, f"{schedule} of {problem} on {target.name}")


def assert_close(got: np.ndarray, want: np.ndarray, rtol: float, label: str) -> None:
    assert got.shape == want.shape, label
    wide_got, wide_want = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(wide_want)
    np.testing.assert_array_equal(wide_got[~finite], wide_want[~finite], err_msg=label)
    scale = np.abs(wide_want[finite]).max(initial=0.0)
    worst = np.abs(wide_got[finite] - wide_want[finite]).max(initial=0.0)
    assert worst <= rtol * scale, f"{label}: off by {worst} at a scale of {scale}"
