"""The build, read top to bottom: ONNX -> graph -> passes -> kernel problems -> tuned code -> engine file."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from redline import frontend, passes
from redline.base import cpu, dtypes, env, log
from redline.base.errors import BuildError, closest
from redline.base.shapes import StaticShape
from redline.builder.accuracy import worst_error
from redline.builder.assemble import Assembler, Assembly
from redline.builder.cuda import build_cuda
from redline.codegen.c import isa, toolchain
from redline.codegen.c.compile import compile_objects, source
from redline.codegen.c.link import link_engine
from redline.codegen.c.toolchain import Toolchain
from redline.engine import write_engine
from redline.ir import Graph
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
    shapes: Mapping[str, StaticShape] | None = None,
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
    ``shapes`` fixes the inputs' open dimensions, ``freeze`` makes inputs constants. ``opt_level`` 0 to 5: how many tactics
    are timed for a kernel. ``timing_cache``: a file of tactic timings (default: one for this machine in the cache folder).
    ``memory_limit``: the most bytes that weights and arena may take. ``num_threads``: what the engine is tuned for (0: all
    that the process may use). ``progress(stage, done, total)`` is called along the way.

    ``target`` cuda or cuda:sm_90: see builder/cuda.py; where the GPU is not on this machine, call ``build_cuda`` instead, for
    an engine cannot be loaded without it.

    Raises ModelError, UnsupportedError, BuildError or CompilerError, each saying what to do.
    """
    if target.split(":")[0] == "cuda":
        path = build_cuda(
            model, output=output, shapes=shapes, freeze=freeze, precision=precision, opt_level=opt_level,
            timing_cache=timing_cache, memory_limit=memory_limit, target=target, progress=progress,
        )  # fmt: skip
        return load(path)
    started = time.perf_counter()
    _check_options(precision, opt_level, num_threads)
    destination = _destination(model, output)
    report = progress or (lambda stage, done, total: None)
    cpu_target = isa.target(target.removeprefix("cpu:"), num_threads)
    compiler = toolchain.find()

    report("read", 0, 1)
    graph = frontend.load(model, shapes=shapes or {}, freeze=freeze or {})
    num_nodes = sum(1 for _ in graph.operations)
    report("optimise", 0, 1)
    graph = passes.optimize(graph)
    program = lower(graph, STORAGE[precision])
    memory = plan(program.steps)
    choices = _tune(program, cpu_target, compiler, opt_level, timing_cache, report)
    summary = _summary(graph, num_nodes, precision, opt_level)
    assembly = Assembler(program, memory, choices).run(cpu_target, compiler, summary)
    _check_memory(assembly, memory_limit)
    report("link", 0, 1)
    code = _link(assembly, choices, cpu_target, compiler)
    if STORAGE[precision] is not None:
        report("compare", 0, 1)
        summary["error"] = worst_error(_write(assembly, code, None), _untuned(graph, cpu_target, compiler))
        assembly = replace(assembly, header=replace(assembly.header, report=summary))
    report("write", 0, 1)
    engine = _write(assembly, code, destination)
    log.debug(1, f"built {graph.name}: {len(program.steps)} kernels in {time.perf_counter() - started:.1f} s")
    return engine


def _check_options(precision: str, opt_level: int, num_threads: int) -> None:
    if precision not in STORAGE:
        raise BuildError("--precision", f"there is no precision {precision!r}", closest(precision, STORAGE))
    if opt_level not in range(6):
        raise BuildError("--opt-level", f"{opt_level} is out of range", "allowed: 0 to 5")
    if num_threads < 0:
        raise BuildError("--threads", f"{num_threads} is out of range", "allowed: 1 and more, or 0 for all that there are")


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


def _link(assembly: Assembly, choices: Sequence[Choice], target: CpuTarget, compiler: Toolchain) -> bytes:
    objects = compile_objects([source(choice.code) for choice in choices], target, compiler)
    return link_engine(objects, assembly.plan, target, compiler)


def _untuned(graph: Graph, target: CpuTarget, compiler: Toolchain) -> Engine:
    """The graph in its own precision with first guesses for tactics: an engine to compare answers with."""
    program = lower(graph)
    jobs = [Job(step.family, step.problem) for step in program.steps]
    chosen = choose(jobs, target, compiler, 0, TimingCache(""), lambda stage, done, total: None)
    choices = [chosen[job] for job in jobs]
    assembly = Assembler(program, plan(program.steps), choices).run(target, compiler, {})
    return _write(assembly, _link(assembly, choices, target, compiler), None)


def _default_cache(machine: str) -> Path:
    return env.cache_dir() / "timings" / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"


def _summary(graph: Graph, num_nodes: int, precision: str, opt_level: int) -> dict[str, Any]:
    """The report in the header: only what is the same in every build from the same model and timing cache."""
    return {"model": graph.name, "nodes": num_nodes, "precision": precision, "opt_level": opt_level}


def _check_memory(assembly: Assembly, limit: int | None) -> None:
    header = assembly.header
    weights, arena = assembly.weights.num_bytes, header.arena_bytes + header.scratch_bytes * header.num_threads
    if limit is not None and weights + arena > limit:
        seen = f"the engine needs {_mib(weights + arena)} (weights {_mib(weights)}, arena {_mib(arena)})"
        raise BuildError("--memory-limit", seen, f"allowed: {_mib(limit)}", "raise the limit, or build for smaller shapes")


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"


def _destination(model: Any, output: str | os.PathLike[str] | None) -> Path | None:
    """Where the engine goes; a folder that is not there is found out before the work begins."""
    if output is None:
        return Path(model).with_suffix(".engine") if isinstance(model, str | os.PathLike) else None
    path = Path(output)
    if not path.parent.is_dir():
        raise BuildError("--output", f"there is no folder {str(path.parent)!r}", "", "make it, or name another file")
    return path


def _write(assembly: Assembly, code: bytes, path: Path | None) -> Engine:
    """Writes the file and loads it; a file without a place lives as long as it is mapped."""
    blobs: dict[str, Iterable[bytes | memoryview]] = {"code": [code], "weights": assembly.weights.pieces()}
    if path is not None:
        write_engine(path, assembly.header, blobs)
        return load(path)
    with tempfile.TemporaryDirectory(prefix="redline-") as folder:
        write_engine(Path(folder) / "model.engine", assembly.header, blobs)
        return load(Path(folder) / "model.engine")
