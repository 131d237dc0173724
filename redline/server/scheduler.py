"""Joins the batcher to the event loop and to the instances of one model version, and answers every request exactly once."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from redline.server.batcher import Batcher, Item
from redline.server.config import Batching, ModelConfig
from redline.server.errors import Kind, ServeError, kind_of
from redline.server.learner import Learner
from redline.server.program import Ran
from redline.server.runners import Runner
from redline.server.stats import Stats
from redline.server.timer import Timer
from redline.server.types import Arrays


class Work(Protocol):
    """The payload of an item: the arrays by input name, and who wants the outputs (or the error)."""

    arrays: Arrays
    started: float
    ended: float

    def answer(self, outputs: Any) -> None:
        """Called exactly once, with the outputs by name or an exception."""


class Scheduler:
    """Used on the event loop only. ``runners`` are the instances; one batch runs on each at a time."""

    def __init__(
        self, config: ModelConfig, max_batch: int, runners: Sequence[Runner], learner: Learner | None, stats: Stats
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle, self._runners, self._stats = deque(runners), list(runners), stats
        self._learner = learner
        rules = config.batching or Batching(adaptive=False)
        self._merges = config.batching is not None
        self._batcher = Batcher(max_batch, rules, self._run, self._expire, time.perf_counter, len(runners), learner)
        self._order: deque[_Batch] | None = deque() if rules.preserve_ordering else None
        self._keys = itertools.count()
        self._timer: Timer | None = None
        self._pump_due = False
        self.running = 0
        self._drained: asyncio.Event | None = None

    @property
    def waiting(self) -> int:
        return self._batcher.waiting

    def submit(self, item: Item) -> None:
        """Queues an item; it runs together with others of this turn of the loop. Raises ServeError for a full queue."""
        if not self._merges:
            item.key = next(self._keys)
        self._batcher.submit(item)
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def cancel(self, item: Item) -> bool:
        """True when the item was still waiting and will not run."""
        gone = self._batcher.cancel(item)
        if gone:
            self._check_drained()
        return gone

    def _pump(self) -> None:
        self._pump_due = False
        if self._timer is not None:
            self._timer.cancel()
        wake = self._batcher.poll()
        if wake is not None:
            if self._timer is None:
                self._timer = Timer(self._loop, self._pump)
            self._timer.set(wake - time.perf_counter())

    def _expire(self, item: Item, error: ServeError) -> None:
        item.payload.answer(error)
        self._check_drained()

    def _run(self, items: list[Item]) -> None:
        runner = self._idle.popleft()
        self.running += 1
        batch = _Batch(items)
        if self._order is not None:
            self._order.append(batch)
        arrays = [item.payload.arrays for item in items]
        runner.start(arrays, lambda result, started, ended: self._done(runner, batch, result, started, ended))

    def _done(self, runner: Runner, batch: "_Batch", result: Ran | BaseException, started: float, ended: float) -> None:
        if isinstance(result, BaseException) and len(batch.items) > 1 and kind_of(result) is not Kind.UNAVAILABLE:
            batch.retry(self, runner)
            return
        self._finish(runner, batch, batch.answers(result), result, started, ended)

    def _finish(
        self, runner: Runner, batch: "_Batch", answers: list[object], result: Ran | BaseException, started: float, ended: float
    ) -> None:
        items = batch.items
        for item in items:
            item.payload.started, item.payload.ended = started, ended
        if isinstance(result, Ran):
            rows = sum(item.size for item in items)
            infer_s = ended - started - result.input_s - result.output_s
            self._stats.executed(rows, len(items), result.input_s, infer_s, result.output_s)
            if self._learner is not None:
                self._learner.executed(rows, ended - started)
        self._stats.touched()
        self._idle.append(runner)
        self.running -= 1
        self._batcher.release()
        if self._batcher.waiting and not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)
        self._deliver(batch, answers)
        self._check_drained()

    def _deliver(self, batch: "_Batch", answers: list[object]) -> None:
        """Answers the batch, and with it those that were only held back by their order."""
        batch.ready = answers
        if self._order is None:
            batch.send()
            return
        while self._order and self._order[0].ready is not None:
            self._order.popleft().send()

    async def drain(self) -> None:
        """Returns when nothing waits or runs."""
        if self._batcher.waiting or self.running:
            self._drained = asyncio.Event()
            await self._drained.wait()

    def _check_drained(self) -> None:
        if self._drained is not None and not self._batcher.waiting and not self.running:
            self._drained.set()

    def close(self) -> None:
        """Gives the instances back; nothing waits or runs any more."""
        if self._timer is not None:
            self._timer.close()
        for runner in self._runners:
            runner.close()


class _Batch:
    """Items that run together. When that fails, each is run alone, so that only those at fault fail."""

    __slots__ = ("_alone", "items", "ready")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.ready: list[object] | None = None
        self._alone: list[object] = []

    def answers(self, result: Ran | BaseException) -> list[object]:
        """One answer for every item."""
        if isinstance(result, BaseException):
            return [result] * len(self.items)
        if len(result.outputs) != len(self.items):
            wrong = RuntimeError(f"{len(result.outputs)} answers came for {len(self.items)} requests")
            return [wrong] * len(self.items)
        return list(result.outputs)

    def retry(self, scheduler: Scheduler, runner: Runner) -> None:
        """Runs the items one by one on the runner that holds them."""
        item = self.items[len(self._alone)]
        runner.start([item.payload.arrays], lambda *done: self._ran_alone(scheduler, runner, *done))

    def _ran_alone(
        self, scheduler: Scheduler, runner: Runner, result: Ran | BaseException, started: float, ended: float
    ) -> None:
        self._alone.append(result if isinstance(result, BaseException) or not result.outputs else result.outputs[0])
        if len(self._alone) < len(self.items):
            self.retry(scheduler, runner)
            return
        scheduler._finish(runner, self, self._alone, RuntimeError("run one by one"), started, ended)

    def send(self) -> None:
        for item, answer in zip(self.items, self.ready or (), strict=True):
            item.payload.answer(answer)
