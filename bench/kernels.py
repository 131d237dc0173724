"""Times kernels alone, on one core, and prints what share of the core's peak they reach.

    python bench/kernels.py [--filter TEXT] [--target avx512+bf16+vnni] [--all] [--cold] [--candidates N]

Operands are warm; with ``--cold`` the constants come from memory, as in a model that is larger than the caches. A time is
the least of many. ``--all`` prints every candidate, not only the fastest. The peak is measured by the same compiler with a
loop of multiply-adds that touch no memory.
"""

import argparse
import ctypes
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from redline.base.dtypes import DType, bfloat16, float32, int8, uint8
from redline.codegen.c import compile as c_compile
from redline.codegen.c import isa, link, toolchain
from redline.kernels import conv, depthwise, matmul
from redline.kernels.dot import accumulator
from redline.kernels.expr import Acc, Expr, Load, call, cast, index, lit
from redline.kernels.problem import CpuTarget, Family, KernelCode, Operand
from redline.tune import ceilings

SECONDS_PER_CANDIDATE = 0.15
COLD_BYTES = 128 << 20  # more than any cache
WARM_BYTES = 128 << 10  # constants that may stay in a cache from one inference to the next

DRIVER = """
__attribute__((visibility("default"))) void rl_drive(
    void *const *args, int64_t num_args, int64_t num_sets, void *scratch, int64_t chunks, int64_t first, int64_t times) {
  for (int64_t i = first; i < first + times; ++i)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) KERNEL(args + i % num_sets * num_args, scratch, chunk);
}
"""


class Timer:
    """A compiled kernel with sets of operands of its own, which take turns."""

    def __init__(self, code: KernelCode, sets: list[list[np.ndarray]], target: CpuTarget) -> None:
        tools = toolchain.find()
        text = c_compile.source(code) + DRIVER
        library = link.link([c_compile.compile_one(text, target, tools)], tools)
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(library)
            file.flush()
            self.function = ctypes.CDLL(file.name, mode=os.RTLD_LOCAL).rl_drive
        self.function.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 2, ctypes.c_void_p, *[ctypes.c_int64] * 3]
        self.sets, self.chunks, self.turn = sets, code.num_chunks, 0
        addresses = [array.ctypes.data for operands in sets for array in operands]
        self.pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        self.scratch = aligned(np.zeros(code.scratch_bytes, np.uint8))

    def run(self, times: int) -> float:
        start = time.perf_counter()
        scratch, num_args = self.scratch.ctypes.data, len(self.sets[0])
        self.function(self.pointers, num_args, len(self.sets), scratch, self.chunks, self.turn, times)
        self.turn += times
        return (time.perf_counter() - start) / times

    def seconds(self) -> float:
        """The least of the times of many runs."""
        once = max(self.run(1), 1e-7)
        times = max(1, int(0.004 / once))
        end = time.perf_counter() + SECONDS_PER_CANDIDATE
        best = once
        while time.perf_counter() < end:
            best = min(best, self.run(times))
        return best


def aligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + array.nbytes].view(array.dtype)
    out[...] = array.reshape(-1)
    return out


def memory(operand: Operand) -> np.ndarray:
    """Random values over the reach of the operand's strides."""
    reach = 1 + sum((e - 1) * s for e, s in zip(operand.shape, operand.strides, strict=True))
    scale = 10 if operand.dtype.is_integer else 1
    return (scale * np.random.default_rng(0).standard_normal(reach, np.float32)).astype(operand.dtype.numpy)


def epilogue(rank: int, kind: str, dtype: DType) -> tuple[Expr, tuple[int, ...]]:
    """Bias, then relu, silu, or a residual and relu, as ``dtype``; and the ranks of the operands it reads.

    For 8-bit products the bias is added after scaling, and the result is rounded and clamped.
    """
    acc = Acc(accumulator(dtype))
    total = call("mul", cast(acc, float32), lit(0.01, float32)) if acc.dtype != float32 else acc
    value = call("add", total, Load(float32, 2, (index(rank - 1),)))
    if kind == "silu":
        value = call("mul", value, call("sigmoid", value))
    else:
        if kind == "residual":
            value = call("add", value, Load(float32, 3, tuple(index(axis) for axis in range(rank))))
        value = call("max", value, lit(0.0, float32))
    if dtype.is_integer:
        value = call("min", call("rint", value), lit(255.0, float32))
    return cast(value, dtype), (1, rank)[: 2 if kind == "residual" else 1]


def gemm(m: int, n: int, k: int, kind: str = "relu", dtype: DType = float32) -> matmul.Problem:
    value, ranks = epilogue(2, kind, dtype)
    extra = tuple(Operand.contiguous(float32, (m, n)[2 - rank :]) for rank in ranks)
    contiguous, weights = Operand.contiguous, int8 if dtype == uint8 else dtype
    return matmul.Problem(
        contiguous(dtype, (m, k)), contiguous(weights, (k, n), True), contiguous(dtype, (m, n)), value, extra
    )  # fmt: skip


def convolution(
    size: int, channels: int, filters: int, kernel: int, stride: int = 1, kind: str = "relu", planar: bool = False,
    groups: int = 1, dtype: DType = float32,
) -> Any:  # fmt: skip
    pad = (kernel - 1) // 2 if kernel != 6 else 2
    out_size = (size + 2 * pad - kernel) // stride + 1
    shape, out_shape = (1, size, size, channels), (1, out_size, out_size, filters)
    strides = (channels * size * size, size, 1, size * size) if planar else Operand.contiguous(float32, shape).strides
    value, ranks = epilogue(4, kind, dtype)
    extra = tuple(Operand.contiguous(float32, out_shape[4 - rank :]) for rank in ranks)
    family = depthwise if groups == channels == filters and groups > 1 else conv
    weights = Operand.contiguous(int8 if dtype == uint8 else dtype, (filters, channels // groups, kernel, kernel), True)
    return family.Problem(
        Operand(dtype, shape, strides), weights, Operand.contiguous(dtype, out_shape), value, extra,
        strides=(stride, stride), dilations=(1, 1), pads=(pad, pad, pad, pad), groups=groups,
    )  # fmt: skip


def problems() -> Iterator[tuple[str, Family, Any]]:
    for m, n, k in [
        (3136, 64, 64), (3136, 256, 64), (784, 512, 128), (196, 256, 1024), (196, 1024, 256), (49, 2048, 512), (49, 512, 2048),
        (128, 768, 768), (128, 3072, 768), (128, 768, 3072), (1, 1000, 2048), (1, 3072, 768), (8, 768, 768),
        (12544, 16, 32), (12544, 96, 16), (3136, 24, 96), (3136, 144, 24), (784, 32, 144), (196, 384, 64), (49, 960, 160),
        (49, 320, 960), (25600, 64, 64), (6400, 128, 128), (6400, 255, 128), (1600, 255, 256), (400, 512, 512),
        (197, 768, 768), (197, 2304, 768),
    ]:  # fmt: skip
        yield f"gemm {m}x{n}x{k}", matmul.FAMILY, gemm(m, n, k)
    yield "gemm residual 3136x256x64", matmul.FAMILY, gemm(3136, 256, 64, "residual")
    yield "gemm silu 6400x64x64", matmul.FAMILY, gemm(6400, 64, 64, "silu")
    for args in [
        (56, 64, 64, 3), (28, 128, 128, 3), (14, 256, 256, 3), (7, 512, 512, 3), (224, 3, 64, 7, 2), (56, 128, 128, 3, 2),
        (28, 256, 256, 3, 2), (56, 256, 512, 1, 2), (14, 1024, 2048, 1, 2),
        (160, 32, 32, 3), (80, 64, 64, 3), (40, 128, 128, 3), (20, 256, 256, 3), (320, 32, 64, 3, 2), (80, 128, 256, 3, 2),
    ]:  # fmt: skip
        yield "conv " + "x".join(map(str, args)), conv.FAMILY, convolution(*args)
    yield "conv planar 224x3x64x7x2", conv.FAMILY, convolution(224, 3, 64, 7, 2, planar=True)
    yield "conv planar silu 640x3x32x6x2", conv.FAMILY, convolution(640, 3, 32, 6, 2, "silu", planar=True)
    for dtype in (bfloat16, uint8):
        for m, n, k in [(3136, 64, 64), (784, 512, 128), (196, 256, 1024), (128, 768, 768), (128, 3072, 768), (49, 2048, 512)]:
            yield f"{dtype} gemm {m}x{n}x{k}", matmul.FAMILY, gemm(m, n, k, dtype=dtype)
        for args in [(56, 64, 64, 3), (28, 128, 128, 3), (14, 256, 256, 3), (7, 512, 512, 3), (224, 3, 64, 7, 2)]:
            yield f"{dtype} conv {'x'.join(map(str, args))}", conv.FAMILY, convolution(*args, dtype=dtype)
        yield f"{dtype} depthwise 56x144s1", depthwise.FAMILY, convolution(56, 144, 144, 3, groups=144, dtype=dtype)
    for size, channels, stride in [
        (112, 32, 1),
        (112, 96, 2),
        (56, 144, 1),
        (28, 192, 1),
        (14, 384, 1),
        (14, 576, 2),
        (7, 960, 1),
    ]:
        case = convolution(size, channels, channels, 3, stride, groups=channels)
        yield f"depthwise {size}x{channels}s{stride}", depthwise.FAMILY, case


def measure(family: Family, problem: Any, schedule: Any, target: CpuTarget, cold: bool = False) -> float:
    code = family.render(problem, schedule, target)
    operands = []
    for i, operand in enumerate(problem.reads + problem.writes):
        array = memory(operand)
        operands.append(aligned(code.packings[i].apply(array.reshape(operand.shape)) if i in code.packings else array))
    constants = [i for i, operand in enumerate(problem.reads) if operand.constant]
    num_bytes = sum(operands[i].nbytes for i in constants)
    copies = 1 + COLD_BYTES // num_bytes if cold and num_bytes > WARM_BYTES else 1
    sets = [[aligned(array) if i in constants else array for i, array in enumerate(operands)] for _ in range(copies)]
    return Timer(code, sets, target).seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="")
    parser.add_argument("--target", default="avx512+bf16+vnni")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--candidates", type=int, default=8)
    args = parser.parse_args()
    target = isa.target(args.target, num_threads=1)
    peak = ceilings.peak("float32", target, toolchain.find()) / 1e9
    print(f"peak of one core: {peak:.1f} GFLOP/s on {args.target}")
    for name, family, problem in problems():
        if args.filter not in name:
            continue
        timed = []
        for schedule in family.schedules(problem, target)[: args.candidates]:
            timed.append((measure(family, problem, schedule, target, args.cold), len(timed), schedule))
        for seconds, rank, schedule in sorted(timed, key=lambda t: t[0])[: None if args.all else 1]:
            gflops = problem.flops / seconds / 1e9
            print(f"{name:28s} {seconds * 1e6:9.1f} us {gflops:6.1f} GFLOP/s {gflops / peak:6.1%} of peak  #{rank} {schedule}")


if __name__ == "__main__":
    main()
