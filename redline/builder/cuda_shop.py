"""From an optimized graph to a CUDA engine: lowering, tuning where the GPU is, machine code. A build does it several times."""

import json
import os
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redline import passes
from redline.base import env, log
from redline.base.dtypes import GPU_ONLY, DType
from redline.base.errors import BuildError, EngineError
from redline.builder import cuda_file
from redline.builder.types import only_on_gpus
from redline.builder.workshop import Progress
from redline.ir import Graph
from redline.kernels.gpu import GpuTarget
from redline.lower import MemoryPlan, Program, images, lower, plan, scalars
from redline.quant import FP8, INT8, Grid, of_images
from redline.runtime.cuda.driver import Driver
from redline.runtime.cuda.engine import CudaEngine, load
from redline.tune.cache import TimingCache
from redline.tune.cuda import GpuChoice, GpuJob, Timer, again, choose

NO_FP8 = "build with --precision int8, or for another GPU"


@dataclass(frozen=True)
class Machine:
    """The GPU here, if there is one."""

    driver: Driver | None
    arch: int = 0
    name: str = ""
    processors: int = 0

    @staticmethod
    def look() -> "Machine":
        try:
            driver = Driver()
            if not driver.num_devices():
                return Machine(None)
            return Machine(driver, driver.arch(0), driver.name(0), driver.processors(0))
        except EngineError:
            return Machine(None)


@dataclass(frozen=True)
class CudaMade:
    """An engine that is not written yet."""

    program: Program
    memory: MemoryPlan
    targets: Sequence[GpuTarget]
    chosen: Mapping[int, Sequence[GpuChoice]]  # by architecture
    version: str
    summary: Mapping[str, Any]
    limit: int | None = None

    def save(self, path: Path) -> None:
        cuda_file.write(
            path, self.program, self.memory, self.targets, self.chosen, self.version, self.summary, self.limit
        )  # fmt: skip

    def write(self, path: Path | None) -> CudaEngine:
        """Writes the file and loads it onto the GPU here; a file without a place lives as long as it is mapped."""
        if path is not None:
            self.save(path)
            return load(path)
        with tempfile.TemporaryDirectory(prefix="redline-") as folder:
            self.save(Path(folder) / "model.engine")
            return load(Path(folder) / "model.engine")


@dataclass(frozen=True)
class CudaShop:
    """The tools of one build. ``storage``: what floats are held in."""

    machine: Machine
    targets: Sequence[GpuTarget]
    version: str
    storage: DType | None
    opt_level: int
    timing_cache: str | os.PathLike[str] | None
    report: Progress
    limit: int | None = None

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Integers, and floats of 8 bits where all the targets multiply them."""
        return (INT8, FP8) if all(target.has_float8 for target in self.targets) else (INT8,)

    def left_out(self, graph: Graph) -> Collection[str]:
        """Images are read in 16 bits (lower/images.py)."""
        return of_images(graph)

    def make(
        self, graph: Graph, storage: DType | None, summary: Mapping[str, Any], opt_level: int | None = None
    ) -> CudaMade:  # fmt: skip
        program = scalars.rewrite(images.rewrite(lower(graph, storage or self.storage)))
        self._check_types(program)
        memory = plan(program.steps)
        jobs = [GpuJob(step.family, step.problem, _aligned(program, i)) for i, step in enumerate(program.steps)]
        level = self.opt_level if opt_level is None else opt_level
        chosen, how = {}, {}
        for each in self.targets:
            found, how[each.name] = _choose(
                jobs, each, self.machine, self.version, level, self.timing_cache, self.report
            )  # fmt: skip
            chosen[each.arch] = [found[job] for job in jobs]
        facts = {**summary, "tactics": how}
        made = CudaMade(program, memory, self.targets, chosen, self.version, facts, self.limit)
        return self._in_order(made) if level else made

    def make_integers(self, graph: Graph, summary: Mapping[str, Any], opt_level: int | None = None) -> CudaMade:
        """The engine of a graph that Redline has quantized."""
        return self.make(passes.use_integers(graph, signed=True), None, summary, opt_level)

    @property
    def narrow(self) -> None:
        """Floats are held in the storage's type anyway."""

    def _check_types(self, program: Program) -> None:
        """Raises BuildError for floats of 8 bits as inputs or outputs, and on a GPU that does not know them."""
        for name, buffer, _ in (*program.inputs, *program.outputs):
            if buffer.dtype in GPU_ONLY:
                remedy = "put a Cast or a DequantizeLinear between it and the model's end"
                raise BuildError(name, f"an input or output of type {buffer.dtype}", "callers have no such numbers", remedy)
        old = [target.name for target in self.targets if not target.has_float8]
        if old and only_on_gpus(program):
            raise BuildError("--target", f"{old[0]} has no floats of 8 bits", "GPUs from sm_89 on have them", NO_FP8)

    def _in_order(self, made: CudaMade) -> CudaMade:
        """``made`` with the order of launching and waiting that makes the whole engine faster on the GPU here."""
        for each in self.targets:
            if self.machine.arch == each.arch and each.overlap:
                choices, order = _launch_order(made.chosen[each.arch], each, made)
                chosen = {**made.chosen, each.arch: choices}
                made = replace(made, chosen=chosen, summary={**made.summary, "launches": order})
        return made


def _aligned(program: Program, i: int) -> tuple[bool, ...]:
    step = program.steps[i]
    return tuple((view.offset * view.dtype.size) % 16 == 0 for view in step.reads + step.writes)


def _choose(
    jobs: Sequence[GpuJob], target: GpuTarget, machine: Machine, version: str, opt_level: int,
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


def _launch_order(late: Sequence[GpuChoice], target: GpuTarget, made: CudaMade) -> tuple[Sequence[GpuChoice], str]:
    """The choices with the order of launching and waiting that makes the whole engine faster, and the order's name."""
    early = again(late, replace(target, eager=True))
    seconds = []
    for choices in (late, early):
        trial = replace(made, targets=[target], chosen={target.arch: choices}, limit=None)
        with trial.write(None) as engine, closing(engine.context()) as context:
            seconds.append(context.seconds())
    log.debug(2, f"launches: late {1e6 * seconds[0]:.1f} us, early {1e6 * seconds[1]:.1f} us")
    return (early, "early") if seconds[1] < 0.99 * seconds[0] else (late, "late")


def _cache(path: Path | None, target: GpuTarget, machine: Machine | None, version: str) -> TimingCache:
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
