"""Ensembles: a small pipeline of models. A step starts when its inputs are there; tensors pass between steps uncopied."""

import asyncio
import functools
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from redline.base.errors import closest
from redline.server import types
from redline.server.config import ModelConfig, Step
from redline.server.errors import invalid
from redline.server.program import with_batch
from redline.server.scheduler import Work
from redline.server.served import NUMBERS, Served
from redline.server.signature import Checker
from redline.server.stats import Stats
from redline.server.types import TensorSpec

Find = Callable[[str, str], Any]


class Ensemble:
    """Takes requests as ``Served`` does; ``find(model, version)`` gives the steps' models at the time of each request."""

    def __init__(self, config: ModelConfig, version: int, message: Any, find: Find) -> None:
        self.name, self.version, self.version_text = config.name, version, str(version)
        self.config, self.message, self.stats, self.number = config, message, Stats(), next(NUMBERS)
        self.labels: Mapping[str, Any] = {}
        self.batched = config.max_batch_size > 0
        self.inputs = with_batch(config.inputs, config.max_batch_size)
        self.outputs: dict[str, TensorSpec] = {s.name: s for s in with_batch(config.outputs, config.max_batch_size)}
        self.checker = Checker(f"model {self.name!r}", self.inputs, config.max_batch_size)
        self._find = find
        check_steps(config)
        for step in config.steps:
            self._check_step(step)
        self._running: set[_Run] = set()
        self._empty: asyncio.Event | None = None

    def _check_step(self, step: Step) -> None:
        """The step's model is served and has the tensors that the step maps."""
        model = self._find(step.model, version_text(step))
        for kind, mapped, known in (
            ("input", step.inputs, [s.name for s in model.inputs]),
            ("output", step.outputs, list(model.outputs)),
        ):
            for name in mapped:
                if name not in known:
                    where = f"model {self.name!r}, step {step.model!r}"
                    raise invalid(where, f"its model has no {kind} {name!r}", closest(name, known))

    def members(self) -> list[str]:
        return [step.model for step in self.config.steps]

    def submit(self, work: Work, rows: int, key: Any, priority: int, timeout_us: int) -> "_Run":
        """Starts the pipeline for one request."""
        run = _Run(self, work, priority, timeout_us)
        self._running.add(run)
        run.advance()
        return run

    def cancel(self, run: Any) -> bool:
        """Takes a request out, whatever of it still waits."""
        return bool(run.cancel())

    def find(self, step: Step) -> Served:
        return self._find(step.model, version_text(step))  # type: ignore[no-any-return]

    def over(self, run: "_Run") -> None:
        self._running.discard(run)
        self.stats.touched()
        if self._empty is not None and not self._running:
            self._empty.set()

    async def retire(self) -> None:
        """Returns when no request is on its way through the steps."""
        if self._running:
            self._empty = asyncio.Event()
            await self._empty.wait()


def version_text(step: Step) -> str:
    return str(step.version) if step.version > 0 else ""


def check_steps(config: ModelConfig) -> None:
    """Every tensor has one source, which does not depend on it, and every output is made."""
    where = f"model {config.name!r}"
    if not config.steps or not config.inputs or not config.outputs:
        raise invalid(where, "an ensemble needs inputs, outputs and steps")
    made = {spec.name for spec in config.inputs}
    for step in config.steps:
        for tensor in step.outputs.values():
            if tensor in made:
                raise invalid(where, f"tensor {tensor!r} is made twice")
            made.add(tensor)
    have, left = {spec.name for spec in config.inputs}, list(config.steps)
    while left:
        ready = [step for step in left if set(step.inputs.values()) <= have]
        if not ready:
            lacking = sorted(set(left[0].inputs.values()) - have)
            raise invalid(where, f"step {left[0].model!r} waits for ever for {', '.join(lacking)}")
        have |= {tensor for step in ready for tensor in step.outputs.values()}
        left = [step for step in left if step not in ready]
    for spec in config.outputs:
        if spec.name not in have:
            raise invalid(where, f"no step makes output {spec.name!r}", closest(spec.name, have))


class _Run:
    """One request on its way through the steps."""

    def __init__(self, ensemble: Ensemble, work: Work, priority: int, timeout_us: int) -> None:
        self._ensemble, self._work, self._priority, self._timeout_us = ensemble, work, priority, timeout_us
        self._tensors: dict[str, np.ndarray] = dict(work.arrays)
        self._left = list(ensemble.config.steps)
        self._cancels: dict[int, Callable[[], bool]] = {}
        self._numbers = itertools.count()
        self._over = False
        work.started = time.perf_counter()

    def advance(self) -> None:
        """Starts every step whose inputs are there; answers when no step is left and none runs."""
        ready = [step for step in self._left if all(t in self._tensors for t in step.inputs.values())]
        self._left = [step for step in self._left if step not in ready]
        for step in ready:
            if not self._over:
                self._start(step)
        if not self._over and not self._left and not self._cancels:
            self._end({name: self._tensors[name] for name in self._ensemble.outputs if name in self._tensors})

    def _start(self, step: Step) -> None:
        number = next(self._numbers)
        arrays = {name: self._tensors[tensor] for name, tensor in step.inputs.items()}
        try:
            member = self._ensemble.find(step)
            checked = member.checker.check(tuple((n, types.V2_OF[a.dtype], a.shape) for n, a in arrays.items()))
            work = _StepWork(arrays, lambda outputs: self._stepped(number, step, outputs))
            handle = member.submit(work, checked.rows, checked.key, self._priority, self._timeout_us)
            self._cancels[number] = functools.partial(member.cancel, handle)
        except Exception as error:
            self._end(error)

    def _stepped(self, number: int, step: Step, outputs: Any) -> None:
        self._cancels.pop(number, None)
        if self._over:
            return
        if isinstance(outputs, BaseException):
            self._end(outputs)
            return
        self._tensors.update({tensor: outputs[name] for name, tensor in step.outputs.items()})
        self.advance()

    def _end(self, outcome: Any) -> None:
        self._over = True
        self._stop_steps()
        self._work.ended = time.perf_counter()
        self._ensemble.over(self)
        self._work.answer(outcome)

    def _stop_steps(self) -> None:
        for cancel in self._cancels.values():
            cancel()
        self._cancels.clear()

    def cancel(self) -> bool:
        """Takes the request out, whatever of it still waits; its answer is dropped."""
        if self._over:
            return False
        self._over = True
        self._stop_steps()
        self._ensemble.over(self)
        return True


class _StepWork:
    """What a member sees of a run: arrays, and where its answer goes."""

    __slots__ = ("answer", "arrays", "ended", "started")

    def __init__(self, arrays: Mapping[str, np.ndarray], answer: Callable[[Any], None]) -> None:
        self.arrays, self.answer = arrays, answer
        self.started = self.ended = 0.0
