"""From an optimized graph to an engine: lowering, tuning, assembly, linking. What a build does as often as it needs.

``Shop`` is what calibration and the gate need of it, whatever the device.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from redline import passes
from redline.base import cpu, env
from redline.base.dtypes import DType, bfloat16
from redline.builder.assemble import Assembler, Assembly
from redline.builder.shapes import Shapes
from redline.codegen.c import isa
from redline.codegen.c.compile import compile_objects, source
from redline.codegen.c.link import link_engine
from redline.codegen.c.toolchain import Toolchain
from redline.engine import Header, write_engine
from redline.ir import Graph
from redline.kernels.problem import CpuTarget
from redline.lower import Program, lower, plan
from redline.runtime import Engine, load
from redline.tune import Choice, Job, TimingCache, choose

Progress = Callable[[str, int, int], None]


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
    """Makes engines of optimized graphs. ``signed``: activations in 8 bits are int8 around 0, not uint8.

    ``left_out``: the layers that the device computes in float at all events. ``narrow``: the type of float products that are
    faster than float32's, where that is not the shop's own business.
    """

    @property
    def signed(self) -> bool: ...
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
    """An engine that is not written yet."""

    assembly: Assembly
    code: bytes
    steps: int

    def reporting(self, report: Mapping[str, Any]) -> "Made":
        """The same with another report in its header."""
        header = replace(self.assembly.header, report=report)
        return replace(self, assembly=replace(self.assembly, header=header))

    def write(self, path: Path | None) -> Engine:
        """Writes the file and loads it; a file without a place lives as long as it is mapped."""
        blobs: dict[str, Iterable[bytes | memoryview]] = {"code": [self.code], "weights": self.assembly.weights.pieces()}
        if path is not None:
            write_engine(path, self.assembly.header, blobs)
            return load(path)
        with tempfile.TemporaryDirectory(prefix="redline-") as folder:
            write_engine(Path(folder) / "model.engine", self.assembly.header, blobs)
            return load(Path(folder) / "model.engine", num_threads=self.assembly.header.num_threads)


@dataclass(frozen=True)
class Workshop:
    """The tools of one build."""

    target: CpuTarget
    compiler: Toolchain
    opt_level: int
    timing_cache: str | os.PathLike[str] | None
    report: Progress
    signed: bool = False

    def left_out(self, graph: Graph) -> Collection[str]:
        return ()

    def make(
        self, graph: Graph, storage: DType | None, summary: Mapping[str, Any], opt_level: int | None = None,
        attended: DType | None = None,
    ) -> Made:  # fmt: skip
        """The engine of ``graph``; ``storage`` and ``attended`` as for ``lower``."""
        program = lower(graph, storage, attended)
        return self.assemble(program, program, None, summary, opt_level)

    def make_integers(self, graph: Graph, summary: Mapping[str, Any], opt_level: int | None = None) -> Made:
        """The engine of a graph that Redline has quantized; attention stays float, in 16 bits where that is faster."""
        return self.make(passes.use_integers(graph), None, summary, opt_level, self.narrow)

    @property
    def narrow(self) -> DType | None:
        """The 16-bit type whose products are faster than float32's, if there is one."""
        return bfloat16 if "bf16" in self.target.features else None

    def assemble(
        self, program: Program, largest: Program, shapes: Shapes | None, summary: Mapping[str, Any],
        opt_level: int | None = None,
    ) -> Made:  # fmt: skip
        """The engine of ``program``, whose memory is planned for ``largest``: the same steps at the largest shape."""
        memory = plan(largest.steps)
        choices = self._tune(program, self.opt_level if opt_level is None else opt_level)
        assembly = Assembler(largest, memory, choices, shapes, program).run(self.target, self.compiler, summary)
        self.report("link", 0, 1)
        objects = compile_objects([source(choice.code) for choice in choices], self.target, self.compiler)
        code = link_engine(objects, assembly.plan, self.target, self.compiler)
        return Made(assembly, code, len(program.steps))

    def _tune(self, program: Program, opt_level: int) -> list[Choice]:
        target = self.target
        machine = f"{cpu.model_name()} {isa.text(target)} {target.num_threads} threads, {self.compiler.identity}"
        cache = TimingCache.open(Path(self.timing_cache) if self.timing_cache else _default_cache(machine), machine)
        jobs = [Job(step.family, step.problem) for step in program.steps]
        chosen = choose(jobs, target, self.compiler, opt_level, cache, self.report)
        return [chosen[job] for job in jobs]


def _default_cache(machine: str) -> Path:
    return env.cache_dir() / "timings" / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"
