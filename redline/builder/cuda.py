"""The build for NVIDIA GPUs: the same graph, passes and lowering, then Triton kernels compiled ahead of time.

Where the machine has the GPU, tactics are timed on it; elsewhere a timing cache or the families' ranking decides, and the
report says which.
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redline import frontend, passes
from redline.base import dtypes, log
from redline.base.errors import BuildError, closest
from redline.base.extents import triton_dimension
from redline.builder import quantization
from redline.builder.cuda_shop import CudaMade, CudaShop, Machine, for_gpus
from redline.builder.plans import Device, Reader, parts_of
from redline.builder.quantization import Metric, Wish
from redline.builder.shapes import Given
from redline.builder.wanted import Fixed, Wanted, largest
from redline.builder.workshop import Progress, Workshop
from redline.codegen.c import isa, toolchain
from redline.codegen.triton import compile as triton
from redline.kernels.gpu import PROCESSORS, GpuTarget

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", *quantization.PRECISIONS)
STORED = {"fp16": dtypes.float16, "bf16": dtypes.bfloat16, **dict.fromkeys(quantization.PRECISIONS, dtypes.float16)}
DEVICE = Device(signed=True, adapt=for_gpus, dimension=triton_dimension, by_size=True, wide_taps=True)


def build_cuda(
    model: Any,
    *,
    output: str | os.PathLike[str] | None = None,
    shapes: Given | Sequence[Given] | None = None,
    buckets: Mapping[str, Fixed | None] | None = None,
    freeze: Mapping[str, frontend.Frozen] | None = None,
    precision: str = "fp16",
    opt_level: int = 3,
    timing_cache: str | os.PathLike[str] | None = None,
    memory_limit: int | None = None,
    target: str = "cuda",
    calibrate: Any = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    calibrator: str = quantization.DEFAULT_CALIBRATOR,
    max_drop: float | None = None,
    min_cosine: float | None = None,
    metric: Metric | None = None,
    progress: Progress | None = None,
) -> Path:
    """Builds an engine for the GPUs that ``target`` names (cuda: the one here; cuda:sm_80+sm_90) and writes it.

    ``precision``: fp32, tf32 (float32 stored, products rounded to 10 bits), fp16 or bf16 (stored in 16 bits, summed in
    float32); for one plan of fixed shapes also int8 (layers with constant weights in integers, the rest in fp16) or best
    (those of them that gain time within the gate), with the options of ``redline.build``: calibration runs on the CPU.
    ``shapes`` and ``buckets`` are those of ``redline.build`` too. Gives the path of the engine. Raises ModelError,
    UnsupportedError, BuildError or CompilerError.
    """
    started = time.perf_counter()
    if precision not in PRECISIONS:
        raise BuildError("--precision", f"there is no precision {precision!r}", closest(precision, PRECISIONS))
    wish = Wish(precision, calibrate, calibration_cache, calibrator, max_drop, min_cosine, metric)
    wish.check()
    machine, version = Machine.look(), triton.version()
    targets = [_target(arch, machine, precision) for arch in architectures(target, machine)]
    report = progress or (lambda stage, done, total: None)
    report("read", 0, 1)
    reader = Reader(frontend.read(model), freeze or {}, STORED.get(precision), DEVICE)
    path = _destination(model, output)
    shop = CudaShop(machine, targets, version, STORED.get(precision), opt_level, timing_cache, report, memory_limit)
    made = _make(model, reader, Wanted.of(shapes, buckets), shop, wish)
    made.save(path)
    log.debug(1, f"built {made.summary['model']}: {made.steps} kernels in {time.perf_counter() - started:.1f} s")
    return path


def _make(model: Any, reader: Reader, wanted: Wanted, shop: CudaShop, wish: Wish) -> CudaMade:
    """The engine: of one plan for fixed shapes, which every precision has, or of plans that need not be."""
    graph = reader.graph(largest(wanted.profiles[0]))
    if frontend.found(graph):
        seen = "the shape of a result depends on data"
        raise BuildError("--target", seen, "allowed: on the CPU only", "build it for the CPU, or cut the model before it")
    facts = {"model": graph.name, "nodes": reader.num_nodes, "precision": wish.precision, "opt_level": shop.opt_level}
    shop.report("optimise", 0, 1)
    if wanted.num_plans > 1 or wanted.is_open:
        _check_several(wish.precision)
        return shop.assemble(list(parts_of(reader, wanted)), facts)
    graph = passes.optimize(graph, signed=DEVICE.signed)
    if wish.precision not in quantization.PRECISIONS:
        return shop.make(graph, None, facts)
    return quantization.make(model, graph, facts, shop, wish, lambda: _observing(shop.report))


def _check_several(precision: str) -> None:
    if precision in quantization.PRECISIONS:
        allowed = ", ".join(p for p in PRECISIONS if p not in quantization.PRECISIONS)
        seen = f"{precision} with open shapes or several plans"
        raise BuildError("--precision", seen, f"allowed: {allowed}", "fix the shapes, or build in one of these")


def check_ragged(ragged: bool) -> None:
    """Raises BuildError for a ragged build, which only processors have."""
    if ragged:
        raise BuildError("ragged", "a CUDA engine", "allowed: engines for processors", "give shapes, without ragged")


def _observing(report: Progress) -> Workshop:
    """Engines of the CPU, which measure ranges."""
    return Workshop(isa.target("cpu", 0), toolchain.find(), 0, None, report)


def architectures(target: str, machine: Machine) -> list[int]:
    """The numbers in ``cuda:sm_80+sm_90``; that of the GPU here for plain ``cuda``."""
    names = target.removeprefix("cuda").removeprefix(":")
    if not names:
        if machine.driver is None:
            remedy = "name the GPU, as in --target cuda:sm_90"
            raise BuildError("--target", "there is no GPU on this machine to build for", "", remedy)
        return [machine.arch]
    found = []
    for name in names.split("+"):
        match = re.fullmatch(r"sm_(\d{2,3})", name)
        if match is None or int(match[1]) < 80:
            known = ", ".join(f"sm_{arch}" for arch in PROCESSORS)
            raise BuildError("--target", f"{name!r} is no architecture that Redline builds for", f"for example {known}")
        found.append(int(match[1]))
    return sorted(set(found))


def _target(arch: int, machine: Machine, precision: str) -> GpuTarget:
    processors = machine.processors if machine.arch == arch else PROCESSORS.get(arch, 108)
    return GpuTarget(arch, processors, overlap=arch >= 90, tf32=precision != "fp32")


def _destination(model: Any, output: str | os.PathLike[str] | None) -> Path:
    if output is not None:
        return Path(output)
    if isinstance(model, str | os.PathLike):
        return Path(model).with_suffix(".engine")
    raise BuildError("output", "a model that is no file was given", "", "say where the engine goes: output=...")
