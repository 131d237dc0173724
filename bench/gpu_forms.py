"""Every form of the products' kernels on the GPU at hand, against numpy: python bench/gpu_forms.py [--each 2] [--small]

Tuning times candidates without looking at their answers; here one of each form (copy engine, walkers, turned, split sums,
shared tails, parts of rows) runs on random numbers with poisoned outputs. ``--small``: shapes that compute-sanitizer gets
through, for a GPU that is said to have few processors.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "cuda")]

from cuda_kernel_check import filled, view  # noqa: E402

from redline.base.dtypes import float8_e4m3fn, float16, float32, int8, int32  # noqa: E402
from redline.codegen.triton.compile import Request, compile_cubins  # noqa: E402
from redline.kernels import FAMILIES  # noqa: E402
from redline.kernels.conv import problem as conv  # noqa: E402
from redline.kernels.crew import Crew  # noqa: E402
from redline.kernels.expr import Acc, Load, call, cast, index, lit  # noqa: E402
from redline.kernels.gpu import GpuTarget  # noqa: E402
from redline.kernels.gpu_families import GPU_FAMILIES  # noqa: E402
from redline.kernels.matmul import problem as matmul  # noqa: E402
from redline.kernels.problem import Operand  # noqa: E402
from redline.runtime.cuda.driver import Driver, Params  # noqa: E402

dense = Operand.contiguous


def epilogue(rank: int, whole: bool):
    if not whole:
        return cast(call("max", call("add", Acc(float32), Load(float32, 2, (index(rank - 1),))), lit(0.0, float32)), float16)
    value = call("add", call("mul", cast(Acc(int32), float32), lit(1e-3, float32)), Load(float32, 2, (index(rank - 1),)))
    held = call("min", call("max", value, lit(-128.0, float32)), lit(127.0, float32))
    return cast(call("rint32", held, dtype=int32), int8)


def problems(small: bool):
    rows, columns, depth = (500, 256, 128) if small else (6304, 768, 768)
    convolutions = ((64, 64, 4, 3), (256, 64, 3, 1)) if small else ((64, 64, 14, 3), (512, 128, 7, 1))
    for dtype in (float16, int8, float8_e4m3fn):
        result = float16 if dtype == float8_e4m3fn else dtype  # whose own steps would hide what is wrong
        e = epilogue(2, dtype == int8), (dense(float32, (columns,)),)
        a, b, out = dense(dtype, (rows, depth)), dense(dtype, (depth, columns), True), dense(result, (rows, columns))
        yield "matmul", matmul.Problem(a, b, out, *e)
        if dtype == float16:
            residual = cast(Load(float16, 3, (index(0), index(1))), float32)
            sums = call("gelu", call("add", Acc(float32), Load(float32, 2, (index(1),))))
            more = (dense(float32, (columns,)), dense(float16, (rows, columns)))
            yield "matmul", matmul.Problem(a, b, out, cast(call("add", sums, residual), float16), more)
        for m, c, side, taps in convolutions:
            pads = (taps // 2,) * 4
            yield "conv", conv.Problem(
                dense(dtype, (128, side, side, c)), dense(dtype, (m, c, taps, taps), True), dense(result, (128, side, side, m)),
                epilogue(4, dtype == int8), (dense(float32, (m,)),), (1, 1), (1, 1), pads, 1,
            )  # fmt: skip


def forms(family, problem, target, each):
    seen: dict[tuple, int] = {}
    for s in GPU_FAMILIES[family].schedules(problem, target):
        form = (s,) if isinstance(s, Crew) else (s.copy_engine, s.walkers > 0, s.turned, s.split > 1, s.tail > 0, s.num_parts)
        seen[form] = seen.get(form, 0) + 1
        if seen[form] <= each:
            yield s


def run(driver, stream, problem, code, cubin, arrays) -> list[np.ndarray]:
    """The answers of a kernel, its outputs poisoned before."""
    passed = [code.packings[i].apply(a) if i in code.packings else a for i, a in enumerate(arrays)]
    addresses = []
    for array in map(np.ascontiguousarray, passed):
        addresses.append(driver.alloc(array.nbytes, "an operand"))
        driver.to_device(addresses[-1], array.ctypes.data, array.nbytes, stream)
        driver.wait(stream)
    outs = [np.empty(o.shape, o.dtype.numpy) for o in problem.writes]
    for out in outs:
        addresses.append(driver.alloc(out.nbytes, "a result"))
        driver.fill(addresses[-1], 0xFF, out.nbytes, stream)
    params, facts = Params(), iter(cubin.maps)
    for i, (operand, address) in enumerate(zip(problem.reads + problem.writes, addresses, strict=True)):
        m = code.maps.get(i)
        if m is None:
            params.pointer(address)
            continue
        fact = next(facts)
        made = driver.tensor_map(
            operand.dtype.name, address, m.shape, m.strides, fact["block_size"], fact["swizzle"], operand.dtype.size
        )
        params.map(made, m.shape, m.strides)
    if code.workspace_bytes:
        addresses.append(driver.alloc(code.workspace_bytes, "the workspace"))
        driver.fill(addresses[-1], 0, code.workspace_bytes, stream)
        params.pointer(addresses[-1])
    module, function = driver.load(cubin.code, cubin.shared_bytes, code.symbol)
    threads = 32 * code.num_warps
    driver.launch(function, code.grid, threads, cubin.shared_bytes, params.close(), stream, False)
    driver.wait(stream)
    for out, address in zip(outs, addresses[len(arrays) :], strict=False):
        driver.to_host(out.ctypes.data, address, out.nbytes, stream)
        driver.wait(stream)
    driver.unload(module)
    for address in addresses:
        driver.free(address)
    return outs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--crews", action="store_true", help="only those of crews of warp groups")
    args = parser.parse_args()
    target = GpuTarget(processors=2) if args.small else GpuTarget()
    driver, rng = Driver(), np.random.default_rng()
    driver.push(driver.retain(0))
    stream, wrong, count, worst = driver.stream(), 0, 0, {}
    for family, problem in problems(args.small):
        arrays = [view(filled(o, rng, (-127, 127)), o) for o in problem.reads]
        expected = FAMILIES[family].reference(problem, arrays)[0].astype(np.float64)
        chosen = [s for s in forms(family, problem, target, args.each) if isinstance(s, Crew) or not args.crews]
        codes = [GPU_FAMILIES[family].render(problem, s, target) for s in chosen]
        aligned = [True] * (len(problem.reads) + 1)
        for s, code, cubin in zip(chosen, codes, compile_cubins([Request.of(c, aligned, target) for c in codes]), strict=True):
            count += 1
            if isinstance(cubin, str) or cubin.shared_bytes > target.shared_bytes:
                print(family, problem.reads[0], s, cubin if isinstance(cubin, str) else "too much shared memory", flush=True)
                continue
            found = run(driver, stream, problem, code, cubin, arrays)[0].astype(np.float64)
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            kind = problem.reads[0].dtype.name
            worst[kind] = max(worst.get(kind, 0.0), float(error))
            if not error <= 2e-3:
                wrong += 1
                print(f"WRONG {error:.1e}", family, problem.reads[0].dtype, problem.reads[0].shape, s, flush=True)
    print(f"{count} kernels, {wrong} wrong; worst relative L2", {k: f"{e:.1e}" for k, e in worst.items()}, flush=True)


if __name__ == "__main__":
    main()
