"""The build for NVIDIA GPUs: the same graph, passes and lowering, then Triton kernels compiled ahead of time.

Where the machine has the GPU, tactics are timed on it; elsewhere a timing cache or the families' ranking decides, and the
report says which.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from redline import frontend, passes
from redline.base import dtypes, log
from redline.base.errors import BuildError, closest
from redline.base.shapes import StaticShape
from redline.builder import quantization
from redline.builder.cuda_shop import CudaMade, CudaShop, Machine
from redline.builder.quantization import Metric, Wish
from redline.builder.workshop import Progress, Workshop
from redline.codegen.c import isa, toolchain
from redline.codegen.triton import compile as triton
from redline.kernels.gpu import PROCESSORS, GpuTarget

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", *quantization.PRECISIONS)
STORED = {"fp16": dtypes.float16, "bf16": dtypes.bfloat16, **dict.fromkeys(quantization.PRECISIONS, dtypes.float16)}


def build_cuda(
    model: Any,
    *,
    output: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, StaticShape] | None = None,
    freeze: Mapping[str, np.ndarray] | None = None,
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
    float32); int8 (layers with constant weights in integers, the rest in fp16) or best (those of them that gain time within
    the gate), with the options of ``redline.build``: calibration runs on the CPU. Gives the path of the engine. Raises
    ModelError, UnsupportedError, BuildError or CompilerError.
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
    graph = frontend.load(model, shapes=shapes or {}, freeze=freeze or {})
    if frontend.found(graph):
        seen = "the shape of a result depends on data"
        raise BuildError("--target", seen, "allowed: on the CPU only", "build it for the CPU, or cut the model before it")
    num_nodes = sum(1 for _ in graph.operations)
    report("optimise", 0, 1)
    graph = passes.optimize(graph, signed=True)
    summary = {"model": graph.name, "nodes": num_nodes, "precision": precision, "opt_level": opt_level}
    shop = CudaShop(machine, targets, version, STORED.get(precision), opt_level, timing_cache, report, memory_limit)
    path = _destination(model, output)
    made: CudaMade = (
        quantization.make(model, graph, summary, shop, wish, lambda: _observing(report))
        if precision in quantization.PRECISIONS
        else shop.make(graph, None, summary)
    )
    made.save(path)
    log.debug(1, f"built {graph.name}: {len(made.program.steps)} kernels in {time.perf_counter() - started:.1f} s")
    return path


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
