"""One loaded version of a model: its configuration, its scheduler, its counters. Made and warmed by ``serve``."""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from redline.base import cpu
from redline.server import types
from redline.server.batcher import Item
from redline.server.config import ModelConfig, Warmup
from redline.server.errors import invalid
from redline.server.learner import Learner
from redline.server.program import Program, Ran
from redline.server.runners import INLINE_BELOW_S, Inline, Runner, Threaded
from redline.server.scheduler import Scheduler, Work
from redline.server.signature import Checker
from redline.server.stats import Stats
from redline.server.tensors import from_bytes
from redline.server.types import TensorSpec

NUMBERS = itertools.count(1)
MEASURED_RUNS = 3


@dataclass(eq=False)
class Served:
    """A version that takes requests. ``number`` is its own in this process."""

    name: str
    version: int
    config: ModelConfig
    message: Any
    program: Program
    scheduler: Scheduler
    stats: Stats
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.number = next(NUMBERS)
        self.version_text = str(self.version)
        self.checker = Checker(f"model {self.name!r}", self.program.inputs, self.program.max_batch_size)
        self.inputs: tuple[TensorSpec, ...] = self.program.inputs
        self.outputs: dict[str, TensorSpec] = {spec.name: spec for spec in self.program.outputs}
        self.batched = self.program.max_batch_size > 0

    def submit(self, work: Work, rows: int, key: Any, priority: int, timeout_us: int) -> Item:
        """Queues work; ``cancel`` of what is given back takes it out of the queue again, if it still waits."""
        item = Item(work, rows, key, priority, timeout_us)
        self.scheduler.submit(item)
        return item

    def cancel(self, item: Any) -> bool:
        """True when the item was still waiting and will not run."""
        return self.scheduler.cancel(item)

    async def retire(self) -> None:
        """Finishes what it holds, then frees everything."""
        await self.scheduler.drain()
        self.scheduler.close()
        self.program.close()


@dataclass(frozen=True)
class Prepared:
    """A program with instances that have run their warm-up, and what was measured."""

    program: Program
    instances: tuple[Any, ...]
    times_s: Mapping[int, float]


def prepare(config: ModelConfig, folder: Path, program: Program) -> Prepared:
    """Makes the instances and warms each of them for every batch size; not on the event loop."""
    threads = config.instances.threads or max(1, cpu.num_threads() // config.instances.count)
    instances: list[Any] = []
    times: dict[int, float] = {}
    try:
        for _ in range(config.instances.count):
            instances.append(program.instance(threads, config.instances.isolated))
        for instance in instances:
            times = _measure(program, instance)
            for warmup in config.warmups:
                _run_warmup(config, folder, program, instance, warmup)
    except BaseException:
        for instance in instances:
            instance.close()
        raise
    return Prepared(program, tuple(instances), times)


def serve(config: ModelConfig, version: int, message: Any, folder: Path, prepared: Prepared) -> Served:
    """Puts prepared instances behind a scheduler; on the event loop."""
    program, stats = prepared.program, Stats()
    loop = asyncio.get_running_loop()
    slowest = max(prepared.times_s.values(), default=1.0)
    inline = program.brief and not config.instances.isolated and slowest < INLINE_BELOW_S
    runners: list[Runner] = [
        Inline(instance) if inline else Threaded(instance, loop, f"{config.name}-{version}") for instance in prepared.instances
    ]
    merges = config.batching is not None and len(prepared.times_s) > 0
    learner = Learner(program.sizes, prepared.times_s) if merges else None
    scheduler = Scheduler(config, program.max_batch_size, runners, learner, stats)
    labels = {name: _labels(config.name, folder / file) for name, file in config.labels.items()}
    return Served(config.name, version, config, message, program, scheduler, stats, labels)


def _labels(model: str, path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"model {model!r}", f"the labels {path.name!r} cannot be read: {error}") from error


def _measure(program: Program, instance: Any) -> dict[int, float]:
    """The best of a few times of each batch size on zeros, in seconds; {} for a model whose shapes are open."""
    times: dict[int, float] = {}
    for size in program.sizes:
        arrays = {
            spec.name: _zeros(_typical(program, spec), size if program.max_batch_size else None) for spec in program.inputs
        }  # fmt: skip
        if any(array is None for array in arrays.values()):
            return {}
        best = float("inf")
        for _ in range(MEASURED_RUNS):
            started = time.perf_counter()
            instance.run([arrays])
            best = min(best, time.perf_counter() - started)
        times[max(1, size)] = best
    return times


def _typical(program: Program, spec: TensorSpec) -> TensorSpec:
    return replace(spec, shape=program.typical.get(spec.name, spec.shape))


def _zeros(spec: TensorSpec, rows: int | None) -> np.ndarray | None:
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    if any(extent < 0 for extent in shape):
        return None
    array = np.zeros(shape, types.NUMPY[spec.datatype])
    if spec.datatype == types.BYTES:
        array.fill(b"")
    return array


def _run_warmup(config: ModelConfig, folder: Path, program: Program, instance: Any, warmup: Warmup) -> None:
    """Runs one warm-up request of the configuration; its failure is the model's."""
    rng = np.random.default_rng(0)
    arrays = {}
    for given in warmup.inputs:
        where = f"model {config.name!r}, warm-up {warmup.name!r}, input {given.name!r}"
        shape = ((warmup.batch_size,) if program.max_batch_size else ()) + given.dims
        if given.source not in ("zero", "random"):
            path = folder / "warmup" / given.source
            if "/" in given.source or not path.is_file():
                raise invalid(where, f"there is no file {given.source!r} in the folder 'warmup'")
            arrays[given.name] = from_bytes(where, given.datatype, shape, path.read_bytes())
            continue
        spec = TensorSpec(given.name, given.datatype, shape)
        array = _zeros(spec, None)
        if array is None:
            raise invalid(where, f"its dims are {list(given.dims)}", "allowed: 0 or more")
        if given.source == "random" and given.datatype != types.BYTES:
            array = (rng.random(shape) * 2).astype(array.dtype)
        arrays[given.name] = array
    checker = Checker(f"model {config.name!r}, warm-up", program.inputs, program.max_batch_size)
    checker.check(tuple((given.name, given.datatype, arrays[given.name].shape) for given in warmup.inputs))
    for _ in range(warmup.count):
        ran = instance.run([arrays])
        assert isinstance(ran, Ran)
