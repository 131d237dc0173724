"""Runs a kernel of open extents alone, at several values of its dimensions, and compares it with the closed reference."""

import ctypes
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from harness import assert_close, permit, random_arrays

from redline.base.extents import MAX_DIMS, Extent, high
from redline.codegen.c import compile as c_compile
from redline.codegen.c import link, toolchain
from redline.kernels.problem import CpuTarget, Family, KernelCode, Operand

GUARD = 1024  # elements around a written operand that must stay as they are
Point = tuple[int, ...]


def check(
    family: Family, make: Callable[..., Any], dims: Sequence[Extent], points: Sequence[Point], target: CpuTarget,
    schedules: Sequence[Any] | None = None, rtol: float = 1e-5,
) -> None:  # fmt: skip
    """``make(*dims)`` is the problem, of extents or of integers. Asserts that its schedules are right at every point."""
    problem = make(*dims)
    for schedule in schedules or family.schedules(problem, target):
        code = family.render(problem, schedule, target)
        function, count = _load(code, target)
        for point in points:
            closed = make(*point)
            arrays = random_arrays(closed.reads)
            for got, want in zip(
                _run(code, function, count, closed, arrays, point), family.reference(closed, arrays), strict=True
            ):
                assert_close(got, want, rtol, f"{schedule} at {point} on {target.name}")


def _run(
    code: KernelCode, function: Any, count: Any, closed: Any, arrays: Sequence[np.ndarray], point: Point
) -> list[np.ndarray]:  # fmt: skip
    held = [np.ascontiguousarray(_laid_out(operand, array)) for operand, array in zip(closed.reads, arrays, strict=True)]
    for index, packing in code.packings.items():
        held[index] = np.ascontiguousarray(packing.apply(arrays[index]))
    memories = [np.full(_reach(operand) + 2 * GUARD, 77, operand.dtype.numpy) for operand in closed.writes]
    dims = (ctypes.c_int64 * MAX_DIMS)(*point)
    starts = [memory[GUARD:].ctypes.data for memory in memories]
    pointers = (ctypes.c_void_p * (len(held) + len(starts) + 1))(
        *[a.ctypes.data for a in held], *starts, ctypes.addressof(dims)
    )
    chunks = count(dims)
    assert chunks <= high(code.num_chunks)
    scratch = np.full(code.scratch_bytes + 192, 0xFF, np.uint8)
    begin = -scratch.ctypes.data % 64
    for chunk in reversed(range(chunks)):
        scratch[:] = 0xFF
        function(pointers, scratch.ctypes.data + begin, chunk)
        assert (scratch[begin + code.scratch_bytes :] == 0xFF).all(), f"{code.family} wrote beyond its scratch at {point}"
    for memory, operand in zip(memories, closed.writes, strict=True):
        assert (memory[:GUARD] == 77).all() and (memory[GUARD + _reach(operand) :] == 77).all(), "wrote beyond its output"
    return [_view(memory[GUARD:], operand) for memory, operand in zip(memories, closed.writes, strict=True)]


def _laid_out(operand: Operand, values: np.ndarray) -> np.ndarray:
    memory = np.zeros(_reach(operand), operand.dtype.numpy)
    _view(memory, operand)[...] = values
    return memory


def _reach(operand: Operand) -> int:
    return 1 + sum((e - 1) * s for e, s in zip(operand.shape, operand.strides, strict=True))


def _view(memory: np.ndarray, operand: Operand) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(memory, operand.shape, [s * operand.dtype.size for s in operand.strides])


def _load(code: KernelCode, target: CpuTarget) -> tuple[Any, Any]:
    """The kernel and the number of its chunks as functions."""
    permit(target)
    tools, visible = toolchain.find(), '__attribute__((visibility("default"))) '
    counting = f"{visible}int64_t chunks_at(const int64_t *dims) {{ return {code.num_chunks}; }}\n"
    text = c_compile.source(replace(code, text=code.text + counting)).replace("void KERNEL(", f"{visible}void KERNEL(")
    symbol = replace(code, text=code.text + counting).symbol
    library = link.link([c_compile.compile_one(text, target, tools)], tools)
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(library)
        file.flush()
        loaded = ctypes.CDLL(file.name, mode=os.RTLD_LOCAL)
    function, count = getattr(loaded, symbol), loaded.chunks_at
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    count.argtypes, count.restype = [ctypes.c_void_p], ctypes.c_int64
    return function, count
