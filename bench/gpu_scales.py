"""Scales as data or as numbers in the code: what each costs the products of an INT8 model, on the GPU at hand.

    python bench/gpu_scales.py RANGES_FOLDER [resnet50:128] [--fp8]

Every product whose scales were lifted (lower/scalars.py) is timed both ways with the family's first schedules; the best of each
way counts. Then sums of floats of 8 bits: as the tensor cores keep them over all of k, or added in float32 after each step.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import zoo
from gpu_forms import run as run_once
from gpu_models import skeletons

from redline import frontend, passes
from redline.base.dtypes import float8_e4m3fn, float16, float32
from redline.builder import quantization
from redline.codegen.triton.compile import Cubin, Request, compile_cubins
from redline.kernels.expr import Acc, Load, call, cast, index
from redline.kernels.gemm_schedule import Schedule
from redline.kernels.gpu import GpuCode, GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.matmul import problem as matmul
from redline.kernels.problem import Operand
from redline.lower import images, lower, scalars
from redline.quant import FP8, INT8, CalibrationCache, insert, of_images, recipe_of
from redline.runtime.cuda.driver import Driver
from redline.tune.cuda import Timer

TARGET, FIRST, ROUNDS = GpuTarget(), 8, 3
SHAPES = ((4096, 768, 3072), (4096, 3072, 768), (4096, 768, 2304))  # m, k, n: BERT's


def best_of(timer: Timer, family: str, problem, change=lambda code, s: code):
    """Seconds and schedule of the fastest of the first schedules, the median of several rounds each."""
    schedules = GPU_FAMILIES[family].schedules(problem, TARGET)[:FIRST]
    codes = [change(GPU_FAMILIES[family].render(problem, s, TARGET), s) for s in schedules]
    cubins = compile_cubins([Request.of(code, [True] * (len(problem.reads) + 1), TARGET) for code in codes])
    fit = [(s, c, b) for s, c, b in zip(schedules, codes, cubins, strict=True) if isinstance(b, Cubin)]
    times = [[timer.seconds(c, b, problem) for s, c, b in fit] for _ in range(ROUNDS)]
    medians = np.median(times, axis=0)
    return float(medians.min()), fit[int(medians.argmin())]


def scales(timer: Timer, folder: Path, name: str, batch: int, grid) -> None:
    model = skeletons.load(name).SerializeToString()
    cache = CalibrationCache.open(folder / f"ranges_{name}.json", quantization.model_hash(model))
    graph = passes.optimize(frontend.load(model, shapes=zoo.shapes(name, batch), freeze={}), signed=True)
    whole = insert(graph, recipe_of(graph, of_images(graph)), cache.tensors, wide=float32, grid=grid)
    before = images.rewrite(lower(passes.use_integers(whole, signed=True), float16))
    after = scalars.rewrite(before)
    pairs = {}
    for old, new in zip(before.steps, after.steps, strict=True):
        if old.problem != new.problem and old.family != "nest":
            pairs.setdefault(repr(new.problem), (old, new))
    print(f"{name}:{batch} {grid.name}: {len({repr(s.problem) for s in before.steps})} problems with numbers in the code, "
          f"{len({repr(s.problem) for s in after.steps})} with scales as data")  # fmt: skip
    for old, new in pairs.values():
        code, data = (best_of(timer, step.family, step.problem)[0] for step in (old, new))
        print(f"  {old.family} {old.reads[0].shape} -> {old.writes[0].shape}: {1e6 * code:.1f} us, as data {1e6 * data:.1f}")


def exact(code: GpuCode, s: Schedule) -> GpuCode:
    """Each step's sum is added in float32."""
    return replace(code, text=re.sub(r", (acc\d*)\)\n", rf", \1, max_num_imprecise_acc={s.block_k})\n", code.text))


def sums(timer: Timer, driver: Driver) -> None:
    rng, stream = np.random.default_rng(), driver.stream()
    for m, k, n in SHAPES:
        dense = Operand.contiguous
        value = cast(call("mul", Acc(float32), Load(float32, 2, (index(1),))), float16)
        problem = matmul.Problem(
            dense(float8_e4m3fn, (m, k)), dense(float8_e4m3fn, (k, n), True), dense(float16, (m, n)), value,
            (dense(float32, (n,), True),),
        )  # fmt: skip
        a, b = ((30 * rng.standard_normal(s)).astype(float8_e4m3fn.numpy) for s in ((m, k), (k, n)))
        scale = np.full(n, 1e-3, np.float32)
        wanted = a.astype(np.float32).astype(np.float64) @ b.astype(np.float64) * 1e-3
        for way, change in (("tensor cores", lambda code, s: code), ("float32 after each step", exact)):
            seconds, (schedule, code, cubin) = best_of(timer, "matmul", problem, change)
            found = run_once(driver, stream, problem, code, cubin, [a, b, scale])[0].astype(np.float64)
            error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
            print(f"  {m} x {k} x {n}, sums in {way}: {1e6 * seconds:.1f} us, relative L2 {error:.1e}, {schedule}", flush=True)


def main() -> None:
    models = [arg for arg in sys.argv[2:] if not arg.startswith("--")]
    driver = Driver()
    timer = Timer(driver, 0, TARGET.overlap)
    for item in models:
        name, _, batch = item.partition(":")
        scales(timer, Path(sys.argv[1]), name, int(batch or 1), FP8 if "--fp8" in sys.argv else INT8)
    sums(timer, driver)
    timer.close()


if __name__ == "__main__":
    main()
