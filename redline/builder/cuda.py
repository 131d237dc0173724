"""The build for NVIDIA GPUs: the same graph, passes and lowering, then Triton kernels compiled ahead of time.

Where the machine has the GPU, tactics are timed on it; elsewhere a timing cache or the families' ranking decides, and the
report says which.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import redline
from redline import frontend, passes
from redline.base import dtypes, env, log
from redline.base.errors import BuildError, EngineError, closest
from redline.base.shapes import StaticShape
from redline.builder.assemble import Assembler
from redline.codegen.triton import compile as triton
from redline.engine import IO, Header, KernelRecord, Stamp, launch, write_engine
from redline.kernels.gpu import PROCESSORS, GpuTarget
from redline.kernels.problem import num_bytes
from redline.lower import MemoryPlan, Program, images, lower, plan
from redline.runtime.cuda.driver import Driver
from redline.runtime.cuda.engine import load
from redline.tune.cache import TimingCache
from redline.tune.cuda import GpuChoice, GpuJob, Timer, again, choose

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
STORED = {"fp16": dtypes.float16, "bf16": dtypes.bfloat16}
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Machine:
    """The GPU here, if there is one."""

    driver: Driver | None
    arch: int = 0
    name: str = ""
    processors: int = 0

    @staticmethod
    def look() -> "_Machine":
        try:
            driver = Driver()
            if not driver.num_devices():
                return _Machine(None)
            return _Machine(driver, driver.arch(0), driver.name(0), driver.processors(0))
        except EngineError:
            return _Machine(None)


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
    progress: Progress | None = None,
) -> Path:
    """Builds an engine for the GPUs that ``target`` names (cuda: the one here; cuda:sm_80+sm_90) and writes it.

    ``precision``: fp32, tf32 (float32 stored, products rounded to 10 bits), fp16 or bf16 (stored in 16 bits, summed in
    float32). Gives the path of the engine. Raises ModelError, UnsupportedError, BuildError or CompilerError.
    """
    started = time.perf_counter()
    if precision not in PRECISIONS:
        raise BuildError("--precision", f"there is no precision {precision!r}", closest(precision, PRECISIONS))
    machine, version = _Machine.look(), triton.version()
    targets = [_target(arch, machine, precision) for arch in architectures(target, machine)]
    report = progress or (lambda stage, done, total: None)
    report("read", 0, 1)
    graph = frontend.load(model, shapes=shapes or {}, freeze=freeze or {})
    if frontend.found(graph):
        seen = "the shape of a result depends on data"
        raise BuildError("--target", seen, "allowed: on the CPU only", "build it for the CPU, or cut the model before it")
    num_nodes = sum(1 for _ in graph.operations)
    report("optimise", 0, 1)
    graph = passes.optimize(graph)
    program = images.rewrite(lower(graph, STORED.get(precision)))
    memory = plan(program.steps)
    jobs = [GpuJob(step.family, step.problem, _aligned(program, i)) for i, step in enumerate(program.steps)]
    chosen, how = {}, {}
    for each in targets:
        found, how[each.name] = _choose(jobs, each, machine, version, opt_level, timing_cache, report)
        chosen[each.arch] = [found[job] for job in jobs]
    summary = {
        "model": graph.name, "nodes": num_nodes, "precision": precision, "opt_level": opt_level, "tactics": how,
    }  # fmt: skip
    path = _destination(model, output)
    for each in targets:
        if machine.arch == each.arch and opt_level and each.overlap:
            write = partial(_write, program=program, memory=memory, version=version, report=summary, limit=None)
            chosen[each.arch], summary["launches"] = _launch_order(path, chosen[each.arch], each, write)
    _write(path, program, memory, targets, chosen, version, summary, memory_limit)
    log.debug(1, f"built {graph.name}: {len(program.steps)} kernels in {time.perf_counter() - started:.1f} s")
    return path


def architectures(target: str, machine: _Machine) -> list[int]:
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


def _target(arch: int, machine: _Machine, precision: str) -> GpuTarget:
    processors = machine.processors if machine.arch == arch else PROCESSORS.get(arch, 108)
    return GpuTarget(arch, processors, overlap=arch >= 90, tf32=precision != "fp32")


def _aligned(program: Program, i: int) -> tuple[bool, ...]:
    step = program.steps[i]
    return tuple((view.offset * view.dtype.size) % 16 == 0 for view in step.reads + step.writes)


def _choose(
    jobs: Sequence[GpuJob], target: GpuTarget, machine: _Machine, version: str, opt_level: int,
    path: str | os.PathLike[str] | None, report: Progress,
) -> tuple[dict[GpuJob, GpuChoice], str]:  # fmt: skip
    """The choices, and how they were made."""
    here = machine.driver is not None and machine.arch == target.arch
    cache = _cache(Path(path) if path else None, target, machine if here else None, version)
    if here and machine.driver is not None and opt_level:
        timer = Timer(machine.driver, 0, target.overlap)
        try:
            return choose(jobs, target, opt_level, cache, timer, report), f"timed on {machine.name}"
        finally:
            timer.close()
    how = f"from the timing cache of {cache.machine}" if cache.entries else "by the heuristic, untimed"
    return choose(jobs, target, opt_level, cache, None, report), how


def _launch_order(
    path: Path, late: list[GpuChoice], target: GpuTarget, write: Callable[..., None]
) -> tuple[list[GpuChoice], str]:
    """The choices with the order of launching and waiting that makes the whole engine faster, and the order's name."""
    early = again(late, replace(target, eager=True))
    seconds = []
    for choices in (late, early):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            trial = Path(folder) / "trial.engine"
            write(trial, targets=[target], chosen={target.arch: choices})
            with load(trial) as engine, closing(engine.context()) as context:
                seconds.append(context.seconds())
    log.debug(2, f"launches: late {1e6 * seconds[0]:.1f} us, early {1e6 * seconds[1]:.1f} us")
    return (early, "early") if seconds[1] < 0.99 * seconds[0] else (late, "late")


def _cache(path: Path | None, target: GpuTarget, machine: _Machine | None, version: str) -> TimingCache:
    """The timing cache: of the GPU here, or of whichever GPU of that architecture ``path`` was measured on."""
    start = f"sm_{target.arch} "
    if machine is not None:
        name = f"{start}{machine.name}, triton {version}"
        folder = env.cache_dir() / "timings"
        return TimingCache.open(path or folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json", name)
    if path is None or not path.exists():
        return TimingCache("")
    try:
        found = str(json.loads(path.read_bytes())["machine"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"timing cache {path}", f"it is no timing cache ({error})", "", "name another file") from error
    if not found.startswith(start):
        return TimingCache("")
    return TimingCache.open(path, found)


def _destination(model: Any, output: str | os.PathLike[str] | None) -> Path:
    if output is not None:
        return Path(output)
    if isinstance(model, str | os.PathLike):
        return Path(model).with_suffix(".engine")
    raise BuildError("output", "a model that is no file was given", "", "say where the engine goes: output=...")


class _CudaAssembler(Assembler):
    """Addresses of operands as on the CPU; weights are packed alike for every architecture."""

    def header(self, targets: Sequence[GpuTarget], version: str, report: Mapping[str, Any]) -> Header:
        records = []
        for i, (step, choice) in enumerate(zip(self.program.steps, self.choices, strict=True)):
            accesses = [self._place(view, choice, k)[1] for k, view in enumerate(step.reads + step.writes)]
            records.append(
                KernelRecord(
                    choice.code.symbol,
                    step.family,
                    step.nodes,
                    1,
                    i > 0,
                    tuple(accesses[: len(step.reads)]),
                    tuple(accesses[len(step.reads) :]),
                    step.problem.flops,
                    num_bytes(step.problem),
                    repr(choice.schedule),
                    choice.seconds,
                    step.reason,
                )
            )
        names = tuple(f"sm_{target.arch}" for target in targets)
        stamp = Stamp(f"cuda:{'+'.join(names)}", names, redline.__version__, f"triton {version}")
        inputs = tuple(IO(name, buffer.dtype.name, shape) for name, buffer, shape in self.program.inputs)
        outputs = tuple(IO(name, buffer.dtype.name, shape) for name, buffer, shape in self.program.outputs)
        return Header(stamp, inputs, outputs, tuple(self.tensors), tuple(records), self.memory.arena_bytes, 0, 1, report)


def launches_of(choices: Sequence[GpuChoice], target: GpuTarget) -> tuple[launch.Launches, bytes]:
    """The launch records and the machine code, each cubin once."""
    places: dict[bytes, int] = {}
    parts: list[launch.Part] = []
    code = bytearray()
    records = []
    for choice in choices:
        cubin = choice.cubin
        if cubin.code not in places:
            places[cubin.code] = len(parts)
            parts.append(launch.Part(len(code), len(cubin.code)))
            code += cubin.code + bytes(-len(cubin.code) % 64)
        maps = tuple(
            launch.MapRecord(
                i, choice.job.problem.reads[i].dtype.name, m.shape, m.strides, tuple(fact["block_size"]), fact["swizzle"]
            )
            for (i, m), fact in zip(sorted(choice.code.maps.items()), cubin.maps, strict=True)
        )
        records.append(
            launch.Launch(
                places[cubin.code],
                choice.code.grid,
                32 * choice.code.num_warps,
                cubin.shared_bytes,
                choice.code.workspace_bytes > 0,
                maps,
            )
        )
    workspace = max((choice.code.workspace_bytes for choice in choices), default=0)
    return launch.Launches(target.arch, target.overlap, workspace, tuple(parts), tuple(records)), bytes(code)


def _write(
    path: Path, program: Program, memory: MemoryPlan, targets: Sequence[GpuTarget], chosen: Mapping[int, Sequence[GpuChoice]],
    version: str, report: Mapping[str, Any], limit: int | None,
) -> None:  # fmt: skip
    first: Any = chosen[targets[-1].arch]
    assembler = _CudaAssembler(program, memory, first)
    header = assembler.header(targets, version, report)
    blobs: dict[str, Any] = {}
    workspace = 0
    for target in targets:
        records, code = launches_of(chosen[target.arch], target)
        workspace = max(workspace, records.workspace_bytes)
        blobs[f"launches.sm_{target.arch}"] = [launch.encode(records)]
        blobs[f"cubins.sm_{target.arch}"] = [code]
    total = assembler.weights.num_bytes + header.arena_bytes + workspace
    if limit is not None and total > limit:
        raise BuildError("--memory-limit", f"the engine needs {total} bytes", f"allowed: {limit}", "build for smaller shapes")
    blobs["weights"] = assembler.weights.pieces()
    write_engine(path, header, blobs)
