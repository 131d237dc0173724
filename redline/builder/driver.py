"""The build, read top to bottom: ONNX -> graph -> passes -> kernel problems -> tuned code -> engine file."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline import frontend, passes
from redline.base import cpu, dtypes, env, log
from redline.base.errors import BuildError, closest
from redline.base.shapes import ShapeRange, StaticShape
from redline.builder.assemble import Assembler, Assembly
from redline.builder.shapes import profile
from redline.codegen.c import isa, toolchain
from redline.codegen.c.compile import compile_objects, source
from redline.codegen.c.link import link_engine
from redline.codegen.c.toolchain import Toolchain
from redline.engine import write_engine
from redline.kernels.problem import CpuTarget
from redline.lower import Program, lower, plan
from redline.runtime import Engine, load
from redline.tune import Choice, Job, TimingCache, choose

STORAGE = {"fp32": None, "bf16": dtypes.bfloat16, "fp16": dtypes.float16}  # of float32 values, by precision
Progress = Callable[[str, int, int], None]


def build(
    model: Any,
    *,
    output: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, StaticShape | ShapeRange] | None = None,
    freeze: Mapping[str, np.ndarray] | None = None,
    precision: str = "fp32",
    opt_level: int = 3,
    timing_cache: str | os.PathLike[str] | None = None,
    memory_limit: int | None = None,
    target: str = "cpu",
    num_threads: int = 0,
    progress: Progress | None = None,
) -> Engine:
    """Builds an engine from an ONNX model (a path, bytes or a ModelProto), writes it and loads it.

    ``output``: where the engine goes; without it, beside a model given as a path, and nowhere for other models.
    ``shapes`` fixes the inputs' open dimensions, or leaves them open in a range (docs/shapes.md); ``freeze`` makes inputs
    constants. ``opt_level`` 0 to 5: how many tactics are timed for a kernel. ``timing_cache``: a file of tactic timings
    (default: one for this machine in the cache folder).
    ``memory_limit``: the most bytes that weights and arena may take. ``num_threads``: what the engine is tuned for (0: all
    that the process may use). ``progress(stage, done, total)`` is called along the way.

    Raises ModelError, UnsupportedError, BuildError or CompilerError, each saying what to do.
    """
    started = time.perf_counter()
    _check_options(precision, opt_level)
    report = progress or (lambda stage, done, total: None)
    cpu_target = isa.target(target.removeprefix("cpu:"), num_threads)
    compiler = toolchain.find()

    report("read", 0, 1)
    ranges = profile(shapes or {}, frontend.declared(model) if shapes else {})
    lowering = _Lowering(model, freeze or {}, precision)
    if ranges is None:
        program = largest = lowering.at(shapes or {})  # type: ignore[arg-type]  # no shape is a range
        spans = None
    else:
        opened, spans = ranges.open(lowering.at)
        program, largest = opened.program, opened.largest
    report("optimise", 0, 1)
    memory = plan(largest.steps)
    choices = _tune(program, cpu_target, compiler, opt_level, timing_cache, report)
    summary = _summary(program.name, lowering.num_nodes, precision, opt_level)
    assembly = Assembler(largest, memory, choices, spans).run(cpu_target, compiler, summary)
    _check_memory(assembly, memory_limit)
    report("link", 0, 1)
    objects = compile_objects([source(choice.code) for choice in choices], cpu_target, compiler)
    code = link_engine(objects, assembly.plan, cpu_target, compiler)
    report("write", 0, 1)
    engine = _write(assembly, code, _destination(model, output))
    log.debug(1, f"built {program.name}: {len(program.steps)} kernels in {time.perf_counter() - started:.1f} s")
    return engine


@dataclass
class _Lowering:
    """The model lowered at any shape; ``num_nodes`` is what the last one began with."""

    model: Any
    freeze: Mapping[str, np.ndarray]
    precision: str
    num_nodes: int = 0

    def at(self, shapes: Mapping[str, StaticShape]) -> Program:
        graph = frontend.load(self.model, shapes=shapes, freeze=self.freeze)
        self.num_nodes = sum(1 for _ in graph.operations)
        return lower(passes.optimize(graph), STORAGE[self.precision])


def _check_options(precision: str, opt_level: int) -> None:
    if precision not in STORAGE:
        raise BuildError("--precision", f"there is no precision {precision!r}", closest(precision, STORAGE))
    if opt_level not in range(6):
        raise BuildError("--opt-level", f"{opt_level} is out of range", "allowed: 0 to 5")


def _tune(
    program: Program,
    target: CpuTarget,
    compiler: Toolchain,
    opt_level: int,
    path: str | os.PathLike[str] | None,
    report: Progress,
) -> list[Choice]:
    machine = f"{cpu.model_name()} {isa.text(target)} {target.num_threads} threads, {compiler.identity}"
    cache = TimingCache.open(Path(path) if path else _default_cache(machine), machine)
    jobs = [Job(step.family, step.problem) for step in program.steps]
    chosen = choose(jobs, target, compiler, opt_level, cache, report)
    return [chosen[job] for job in jobs]


def _default_cache(machine: str) -> Path:
    return env.cache_dir() / "timings" / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"


def _summary(name: str, num_nodes: int, precision: str, opt_level: int) -> dict[str, Any]:
    """The report in the header: only what is the same in every build from the same model and timing cache."""
    return {"model": name, "nodes": num_nodes, "precision": precision, "opt_level": opt_level}


def _check_memory(assembly: Assembly, limit: int | None) -> None:
    header = assembly.header
    weights, arena = assembly.weights.num_bytes, header.arena_bytes + header.scratch_bytes * header.num_threads
    if limit is not None and weights + arena > limit:
        seen = f"the engine needs {_mib(weights + arena)} (weights {_mib(weights)}, arena {_mib(arena)})"
        raise BuildError("--memory-limit", seen, f"allowed: {_mib(limit)}", "raise the limit, or build for smaller shapes")


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"


def _destination(model: Any, output: str | os.PathLike[str] | None) -> Path | None:
    if output is not None:
        return Path(output)
    return Path(model).with_suffix(".engine") if isinstance(model, str | os.PathLike) else None


def _write(assembly: Assembly, code: bytes, path: Path | None) -> Engine:
    """Writes the file and loads it; a file without a place lives as long as it is mapped."""
    blobs: dict[str, Iterable[bytes | memoryview]] = {"code": [code], "weights": assembly.weights.pieces()}
    if path is not None:
        write_engine(path, assembly.header, blobs)
        return load(path)
    with tempfile.TemporaryDirectory(prefix="redline-") as folder:
        write_engine(Path(folder) / "model.engine", assembly.header, blobs)
        return load(Path(folder) / "model.engine")
