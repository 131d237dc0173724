"""From an optimized graph to an engine: lowering, tuning, assembly, linking. What a build does as often as it needs.

``Shop`` is what calibration and the gate need of it, whatever the device.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np

from redline import passes
from redline.base import cpu, env
from redline.base.dtypes import DType, bfloat16
from redline.base.errors import BuildError
from redline.builder.assemble import Assembler
from redline.builder.forms import Forms, distinct
from redline.builder.plans import Part
from redline.builder.types import only_on_gpus
from redline.builder.weights import Weights
from redline.codegen.c import isa
from redline.codegen.c.compile import compile_objects, source
from redline.codegen.c.link import link_engine
from redline.codegen.c.toolchain import Toolchain
from redline.engine import Header, blob_of, encode_steps, joined, write_engine
from redline.ir import Graph
from redline.kernels.problem import CpuTarget
from redline.lower import Joint, Program, Step, join, joints, lower, plan
from redline.quant import UINT8, Grid
from redline.runtime import Engine, load
from redline.tune import Choice, Job, TimingCache, choose, contest

Progress = Callable[[str, int, int], None]


WORTH = 0.97  # of the time of several steps: one that is hardly faster alone is not in an engine
FAR_BEHIND = 1.3  # times the steps' own times, though they were measured at other moments


class Runnable(Protocol):
    """A loaded engine."""

    @property
    def header(self) -> Header: ...
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]: ...
    def profile(self, inputs: Mapping[str, Any], repeats: int = ...) -> np.ndarray: ...


class Product(Protocol):
    """An engine that is not written yet."""

    def write(self, path: Path | None) -> Runnable: ...


P = TypeVar("P", bound=Product, covariant=True)


class Shop(Protocol[P]):
    """Makes engines of optimized graphs. ``grids``: those on which it multiplies quantized tensors, integers first.

    ``left_out``: the layers that the device computes in float at all events. ``narrow``: the type of float products that are
    faster than float32's, where that is not the shop's own business.
    """

    @property
    def grids(self) -> tuple[Grid, ...]: ...
    @property
    def report(self) -> Progress: ...
    @property
    def narrow(self) -> DType | None: ...
    def left_out(self, graph: Graph) -> Collection[str]: ...
    def make_integers(self, graph: Graph, summary: Mapping[str, Any], opt_level: int | None = None) -> P: ...
    def make(self, graph: Graph, storage: DType | None, summary: Mapping[str, Any], opt_level: int | None = None) -> P: ...


AnyShop = Shop[Product]


@dataclass(frozen=True)
class Made:
    """An engine that is not written yet. ``headers``: of its plans, the first one's report being the engine's."""

    headers: tuple[Header, ...]
    weights: Weights
    code: bytes

    @property
    def steps(self) -> int:
        return sum(len(header.kernels) for header in self.headers)

    def reporting(self, report: Mapping[str, Any]) -> "Made":
        """The same with another report in its header."""
        return replace(self, headers=(replace(self.headers[0], report=report), *self.headers[1:]))

    def write(self, path: Path | None) -> Engine:
        """Writes the file and loads it; a file without a place lives as long as it is mapped."""
        if path is not None:
            self._save(path)
            return _loaded(path, 0)
        with tempfile.TemporaryDirectory(prefix="redline-") as folder:
            self._save(Path(folder) / "model.engine")
            return _loaded(Path(folder) / "model.engine", self.headers[0].num_threads)

    def _save(self, path: Path) -> None:
        blobs: dict[str, Iterable[bytes | memoryview]] = {"code": [self.code]}
        blobs |= {blob_of(number): [encode_steps(plan)] for number, plan in enumerate(self.headers) if number}
        write_engine(path, joined(*self.headers), {**blobs, "weights": self.weights.pieces()})


def _loaded(path: Path, num_threads: int) -> Engine:
    engine = load(path, num_threads)
    assert isinstance(engine, Engine), "it was built for a processor"
    return engine


@dataclass(frozen=True)
class Workshop:
    """The tools of one build."""

    target: CpuTarget
    compiler: Toolchain
    opt_level: int
    timing_cache: str | os.PathLike[str] | None
    report: Progress
    grids: tuple[Grid, ...] = (UINT8,)

    def left_out(self, graph: Graph) -> Collection[str]:
        return ()

    def make(
        self, graph: Graph, storage: DType | None, summary: Mapping[str, Any], opt_level: int | None = None,
        attended: DType | None = None,
    ) -> Made:  # fmt: skip
        """The engine of ``graph``; ``storage`` and ``attended`` as for ``lower``."""
        program = lower(graph, storage, attended)
        return self.assemble([Part("", program, program)], summary, opt_level)

    def make_integers(self, graph: Graph, summary: Mapping[str, Any], opt_level: int | None = None) -> Made:
        """The engine of a graph that Redline has quantized; attention stays float, in 16 bits where that is faster."""
        return self.make(passes.use_integers(graph), None, summary, opt_level, self.narrow)

    @property
    def narrow(self) -> DType | None:
        """The 16-bit type whose products are faster than float32's, if there is one."""
        return bfloat16 if "bf16" in self.target.features else None

    def assemble(self, parts: Sequence[Part], summary: Mapping[str, Any], opt_level: int | None = None) -> Made:
        """The engine of these plans: kernels and weights that several of them have are in it once."""
        for part in parts:
            _check_types(part.program)
        parts = [self._joined(part, opt_level) for part in parts]
        forms, weights, made = Forms(), Weights(), []
        picked = [
            forms.choices(p.program, self._tune(_jobs(p.program.steps), opt_level, forms.wanted(p.program))) for p in parts
        ]
        for part, choices in zip(parts, picked, strict=True):
            assembler = Assembler(part.largest, plan(part.largest.steps), choices, part.shapes, part.program, weights)
            made.append(assembler.run(self.target, self.compiler, summary))
        self.report("link", 0, 1)
        objects = compile_objects([source(choice.code) for choice in distinct(picked)], self.target, self.compiler)
        code = link_engine(objects, [assembly.plan for assembly in made], self.target, self.compiler)
        names = [part.name for part in parts] if len(parts) > 1 else [""]
        headers = (replace(assembly.header, name=name) for assembly, name in zip(made, names, strict=True))
        return Made(tuple(headers), weights, code)

    def _joined(self, part: Part, opt_level: int | None) -> Part:
        """``part`` with one step in place of several wherever that was measured to be faster."""
        near = self.target.l2_bytes * self.target.num_threads // 2  # beside it lie what is read and what is written
        found = joints(part.program, near) if part.program is part.largest else []
        if not found:
            return part
        chosen = self._tune(_jobs(step for joint in found for step in (*joint.parts, joint.joined)), opt_level)
        cache = self._cache()
        gains = [self._gain(joint, chosen, cache) for joint in found]
        program = join(part.program, _best(found, gains))
        return replace(part, program=program, largest=program)

    def _gain(self, joint: Joint, chosen: Mapping[Job, Choice], cache: TimingCache) -> float:
        """By how much one step is faster than several; nothing where they were not timed, or it is far behind."""
        joined, *parts = (chosen[job] for job in _jobs((joint.joined, *joint.parts)))
        known = [part.seconds for part in parts if part.seconds is not None]
        if joined.seconds is None or (len(known) == len(parts) and joined.seconds > FAR_BEHIND * sum(known)):
            return 0.0
        apart, together = contest(parts, joined, self.target, self.compiler, cache)
        return WORTH * apart - together

    def _tune(
        self, jobs: Sequence[Job], opt_level: int | None, forms: Mapping[Job, Collection[str]] = MappingProxyType({})
    ) -> dict[Job, Choice]:
        level = self.opt_level if opt_level is None else opt_level
        return choose(jobs, self.target, self.compiler, level, self._cache(), self.report, forms)

    def _cache(self) -> TimingCache:
        target = self.target
        machine = f"{cpu.model_name()} {isa.text(target)} {target.num_threads} threads, {self.compiler.identity}"
        return TimingCache.open(Path(self.timing_cache) if self.timing_cache else _default_cache(machine), machine)


def _jobs(steps: Iterable[Step]) -> list[Job]:
    return [Job(step.family, step.problem) for step in steps]


def _best(found: Sequence[Joint], gains: Sequence[float]) -> list[Joint]:
    """Those that gain time, the most first; of those that share a part the better one."""
    taken: set[Step] = set()
    chosen = []
    for gain, joint in sorted(zip(gains, found, strict=True), key=lambda entry: -entry[0]):
        if gain > 0 and taken.isdisjoint(joint.parts):
            taken.update(joint.parts)
            chosen.append(joint)
    return chosen


def _check_types(program: Program) -> None:
    """Raises BuildError for element types that only GPUs compute with."""
    found = only_on_gpus(program)
    if found is not None:
        seen = f"{', '.join(found[0].nodes[:1])}: values of type {found[1]}"
        raise BuildError("--target", seen, "GPUs from sm_89 on compute with them", "build with --target cuda:sm_90")


def _default_cache(machine: str) -> Path:
    return env.cache_dir() / "timings" / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"
