"""From an optimized graph to a CUDA engine: lowering, tuning where the GPU is, machine code. A build does it several times."""

import json
import os
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from redline import passes
from redline.base import env, log
from redline.base.dtypes import GPU_ONLY, DType
from redline.base.errors import BuildError, EngineError
from redline.base.shapes import StaticShape
from redline.builder import bands, cuda_file
from redline.builder.cuda_file import Band, CudaPlan
from redline.builder.plans import Part
from redline.builder.types import only_on_gpus
from redline.builder.workshop import Progress
from redline.engine import Header, shape_at
from redline.ir import Graph
from redline.kernels.gpu import GpuTarget
from redline.lower import Program, bounded, images, lower, plan, scalars
from redline.quant import FP8, INT8, Grid, of_images
from redline.runtime.cuda.driver import Driver
from redline.runtime.cuda.engine import CudaEngine, load
from redline.tune.cache import TimingCache
from redline.tune.cuda import WAY_OUT, GpuChoice, GpuJob, Timer, again, choose, why_closed

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

    plans: tuple[CudaPlan, ...]
    targets: Sequence[GpuTarget]
    version: str
    summary: Mapping[str, Any]
    limit: int | None = None

    @property
    def steps(self) -> int:
        return sum(len(plan.program.steps) for plan in self.plans)

    def save(self, path: Path) -> None:
        cuda_file.write(path, self.plans, self.targets, self.version, self.summary, self.limit)

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
        program = scalars.rewrite(for_gpus(lower(graph, storage or self.storage, wide_taps=True)))
        return self.assemble([Part("", program, program)], summary, opt_level)

    def assemble(self, parts: Sequence[Part], summary: Mapping[str, Any], opt_level: int | None = None) -> CudaMade:
        """The engine of these plans: machine code and weights that several of them have are in it once."""
        for part in parts:
            self._check_types(part.program)
        level = self.opt_level if opt_level is None else opt_level
        jobs = [_jobs(part.program) for part in parts]
        _check_forms(parts, jobs, self.targets[0])
        places = [bands.places(part.shapes.dims if part.shapes else ()) for part in parts]
        wanted = [job.tuned_at(p.dims, p.most) for some, at in zip(jobs, places, strict=True) for p in at for job in some]
        found: dict[int, Mapping[GpuJob, GpuChoice]] = {}
        how = {}
        for target in self.targets:
            found[target.arch], how[target.name] = _choose(
                wanted, target, self.machine, self.version, level, self.timing_cache, self.report
            )  # fmt: skip
        plans = []
        for part, mine, at in zip(parts, jobs, places, strict=True):
            each = {arch: [_band(place, mine, known) for place in at] for arch, known in found.items()}
            chosen = {arch: some[0].choices for arch, some in each.items()}
            better = {arch: some[1:] for arch, some in each.items()}
            for arch, others in better.items():
                _check_packings(each[arch][0], others)
            name, memory = part.name if len(parts) > 1 else "", plan(part.largest.steps)
            plans.append(CudaPlan(name, part.largest, memory, chosen, part.program, part.shapes, better))
        made = CudaMade(tuple(plans), self.targets, self.version, {**summary, "tactics": how}, self.limit)
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
        """``made`` with the order of launching and waiting that makes each plan faster on the GPU here."""
        for each in self.targets:
            if self.machine.arch == each.arch and each.overlap:
                ordered = [_launch_order(one, each, made) for one in made.plans]
                names = [name for _, name in ordered]
                order = names[0] if len(names) == 1 else {p.name: name for p, name in zip(made.plans, names, strict=True)}
                made = replace(made, plans=tuple(p for p, _ in ordered), summary={**made.summary, "launches": order})
        return made


def for_gpus(program: Program) -> Program:
    """``program`` as GPUs run it: images read in 16 bits, and what goes to depthwise convolutions in fixed point if it may."""
    return bounded.rewrite(images.rewrite(program))


def _jobs(program: Program) -> list[GpuJob]:
    return [GpuJob(step.family, step.problem, _aligned(program, i)) for i, step in enumerate(program.steps)]


def _band(place: bands.Place, jobs: Sequence[GpuJob], known: Mapping[GpuJob, GpuChoice]) -> Band:
    return Band(place.least, place.most, [known[job.tuned_at(place.dims, place.most)] for job in jobs])


def _check_packings(first: Band, others: Sequence[Band]) -> None:
    """A weight is in the file once, so its packing is the problem's and the target's business, not the schedule's."""
    for band in others:
        for mine, usual in zip(band.choices, first.choices, strict=True):
            packed = [{i: p.name for i, p in choice.code.packings.items()} for choice in (mine, usual)]
            assert packed[0] == packed[1], f"{mine.code.symbol} packs its constants as no other schedule does"


def _check_forms(parts: Sequence[Part], jobs: Sequence[Sequence[GpuJob]], target: GpuTarget) -> None:
    """Raises BuildError, naming the nodes, for steps of open extents that have no kernel."""
    for part, mine in zip(parts, jobs, strict=True):
        for step, job in zip(part.program.steps, mine, strict=True):
            why = why_closed(job, target) if job.is_open else ""
            if why:
                raise BuildError(f"node {', '.join(step.nodes[:2])}", why, "", WAY_OUT)


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


def _launch_order(of: CudaPlan, target: GpuTarget, made: CudaMade) -> tuple[CudaPlan, str]:
    """The plan with the order of launching and waiting that makes it faster, in the mean over its sizes; the order's name."""
    eager = _eager(of, target)
    seconds: list[float] = []
    for each in (of, eager):
        alone = replace(each, name="")
        trial = replace(made, plans=(alone,), targets=[target], limit=None)
        with trial.write(None) as engine, closing(engine.context()) as context:
            seconds.append(geometric_mean([context.seconds(shapes=shapes) for shapes in _sizes(engine.header)]))
    log.debug(2, f"launches: late {1e6 * seconds[0]:.1f} us, early {1e6 * seconds[1]:.1f} us")
    return (eager, "early") if seconds[1] < 0.99 * seconds[0] else (of, "late")


def _sizes(header: Header) -> list[dict[str, StaticShape]]:
    """The shapes of the inputs that kernels were chosen for."""
    return [{io.name: shape_at(io, place.dims) for io in header.inputs} for place in bands.places(header.dims)]


def _eager(of: CudaPlan, target: GpuTarget) -> CudaPlan:
    arch, eager = target.arch, replace(target, eager=True)
    better = [replace(band, choices=again(band.choices, eager)) for band in of.bands.get(arch, ())]
    return replace(of, chosen={**of.chosen, arch: again(of.chosen[arch], eager)}, bands={**of.bands, arch: better})


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
