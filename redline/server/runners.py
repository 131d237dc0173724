"""Where instances run: on the event loop for models that answer in microseconds, else on a thread of their own."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence

from redline.server.program import Instance, Ran
from redline.server.types import Arrays

INLINE_BELOW_S = 150e-6  # a hop to a thread and back costs about as much
Done = Callable[["Ran | BaseException", float, float], None]


class Inline:
    """Runs a batch at once; ``done(result, started, ended)`` is called before ``start`` returns."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    def start(self, batch: Sequence[Arrays], done: Done) -> None:
        started = time.perf_counter()
        result = run_guarded(self.instance, batch)
        done(result, started, time.perf_counter())

    def close(self) -> None:
        self.instance.close()


class Threaded:
    """Runs batches on one thread; ``done`` is called on the event loop."""

    def __init__(self, instance: Instance, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.instance, self._loop = instance, loop
        self._jobs: queue.SimpleQueue[tuple[Sequence[Arrays], Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def start(self, batch: Sequence[Arrays], done: Done) -> None:
        self._jobs.put((batch, done))

    def close(self) -> None:
        """Lets the thread finish what it has and end; the instance is closed after that."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, done = job
            started = time.perf_counter()
            result = run_guarded(self.instance, batch)
            ended = time.perf_counter()
            try:
                self._loop.call_soon_threadsafe(done, result, started, ended)
            except RuntimeError:
                return  # the loop is closed: the process is ending
            del job, batch, done, result
        self.instance.close()


Runner = Inline | Threaded


def run_guarded(instance: Instance, batch: Sequence[Arrays]) -> Ran | BaseException:
    """The batch's outputs, or whatever was raised: an instance that fails must not take its thread along."""
    try:
        return instance.run(batch)
    except Exception as error:
        return error
