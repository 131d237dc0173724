"""The listening half of a front end: accepts connections, has them looked at now and then, and ends them in good order."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

SWEEP_S = 2.0
LAST_WRITES_S = 2.0


class Accepted(Protocol):
    """A connection, as the listener knows it."""

    def abort(self) -> None:
        """Ends it at once."""


C = TypeVar("C", bound=Accepted)


class Listener(Generic[C]):
    """``connections`` are open; ``sweep`` is called every few seconds. ``make`` builds the protocol of a new connection."""

    def __init__(self, make: Callable[[], Any], sweep: Callable[[], None]) -> None:
        self._make, self._sweep = make, sweep
        self.connections: set[C] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Starts to accept connections; the port in use (``port`` 0: a free one)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make, host, port, ssl=tls, backlog=1024)
        self._sweeper = loop.create_task(self._sweep_often())
        return int(self._server.sockets[0].getsockname()[1])

    async def _sweep_often(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._sweep()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs work for a connection."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    async def finish(self) -> None:
        """Waits for the work."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Waits for connections that are ending, and aborts those that do not in time."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        ended = asyncio.get_running_loop().time() + LAST_WRITES_S
        while self.connections and asyncio.get_running_loop().time() < ended:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
