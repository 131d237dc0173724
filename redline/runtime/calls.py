"""Calls made ahead: a few threads that run them in the order of arrival, and the futures that stand for their results."""

import importlib
import os
import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Pending(Future, Generic[T]):  # type: ignore[type-arg]  # Future itself is generic for the type checker only
    """A future of the standard library that coroutines can also await."""

    def fulfil(self, work: Callable[[], T]) -> None:
        """Runs ``work`` here and now, unless the future is cancelled, and keeps what it gives or raises."""
        if not self.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(result)

    def __await__(self) -> Generator[Any, None, T]:
        return importlib.import_module("asyncio").wrap_future(self).__await__()  # who awaits has imported it already


Item = tuple[Pending[Any], Callable[[], Any]] | None


class Calls:
    """At most ``limit`` daemon threads, started when they are needed: a program may end while calls are waiting."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pid = os.getpid()
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)  # threads that wait for work and are not promised any yet
        self._threads: list[threading.Thread] = []

    def submit(self, work: Callable[[], T]) -> Pending[T]:
        """The future of ``work()``."""
        if self._pid != os.getpid():
            self.__init__(self.limit)  # type: ignore[misc]  # in the child of a fork: the threads are the parent's
        pending: Pending[T] = Pending()
        self._queue.put((pending, work))
        if self._idle.acquire(blocking=False):
            return pending
        if len(self._threads) < self.limit:
            self._threads.append(threading.Thread(target=_serve, args=(self._queue, self._idle), daemon=True))
            self._threads[-1].start()
        return pending

    def close(self) -> None:
        """Cancels what has not begun and lets the threads end."""
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[0].cancel()
        for _ in self._threads:
            self._queue.put(None)
        self._threads = []


def _serve(calls: "queue.SimpleQueue[Item]", idle: threading.Semaphore) -> None:
    while (item := calls.get()) is not None:
        pending, work = item
        pending.fulfil(work)
        del item, pending, work  # the arrays of a call are not kept until the next one
        idle.release()
