"""The HTTP front end: listens, hands requests to their handlers, enforces limits, and ends when it is drained."""

import asyncio
import hmac
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from redline.server.dataplane import DataPlane
from redline.server.errors import Kind, ServeError, unavailable
from redline.server.http.answer import respond
from redline.server.http.bodies import decompress
from redline.server.http.connection import Connection, Exchange
from redline.server.http.head import Heads
from redline.server.http.infer import Plans, split
from redline.server.http.routes import Routes
from redline.server.types import Result

SCRATCH_BYTES = 256 << 10
SWEEP_S = 2.0


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server."""

    body_bytes: int = 256 << 20
    connections: int = 4096
    read_timeout_s: float = 30.0
    idle_timeout_s: float = 300.0


class HttpFront:
    """Translates between connections and the data plane."""

    def __init__(
        self,
        plane: DataPlane,
        limits: Limits,
        token: str = "",
        metrics: Callable[[], bytes] | None = None,
        log: Callable[[Exchange], None] | None = None,
    ) -> None:
        self._plane, self.limits, self.log = plane, limits, log
        self._token = f"Bearer {token}".encode() if token else b""
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self.heads, self._plans = Heads(), Plans()
        self._routes = Routes(plane, metrics)
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.draining = False

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Starts to accept connections; the port in use (``port`` 0: a free one)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, ssl=tls, backlog=1024)
        self._sweeper = loop.create_task(self._sweep())
        return int(self._server.sockets[0].getsockname()[1])

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        if len(self._connections) > self.limits.connections:
            connection.refuse(unavailable("server", f"{self.limits.connections} connections are open", "that is its limit"))

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    # -- requests

    def handle(self, exchange: Exchange) -> None:
        """Starts to answer a request; every path ends in exactly one answer."""
        try:
            if self.log is not None:
                exchange.started = time.perf_counter()
            head = exchange.head
            if self._token:
                self._authorize(exchange)
            if head.content_encoding not in ("", "identity"):
                exchange.body = decompress(head.content_encoding, exchange.body, self.limits.body_bytes)
            target = self._routes.inference(head)
            if target is not None:
                self._infer(exchange, *target)
                return
            handler = self._routes.find(head)
            outcome = handler(exchange)
            if isinstance(outcome, Awaitable):
                self._run(exchange, outcome)
            else:
                exchange.answer(outcome)
        except Exception as error:
            exchange.fail(error)

    def _authorize(self, exchange: Exchange) -> None:
        head = exchange.head
        if head.segments[:2] == ("v2", "health"):
            return
        if not hmac.compare_digest(head.authorization.encode(), self._token):
            remedy = "send the header Authorization: Bearer TOKEN"
            raise ServeError(Kind.UNAUTHENTICATED, "http", "the bearer token is missing or wrong", "", remedy)

    def _infer(self, exchange: Exchange, model: str, version: str) -> None:
        """The hot path: no coroutine, and nothing parsed that was parsed before."""
        regions, head = self._plane.regions, exchange.head
        text, binary = split(head, exchange.body)
        plan = self._plans(head, model, version, text)
        plan.regions_apart(regions)
        request = plan.bind(binary, regions)

        def deliver(result: Result) -> None:
            if isinstance(result, BaseException):
                exchange.fail(result)
                return
            try:
                pieces = respond(plan, result, head, regions)
            except Exception as error:
                exchange.fail(error)
                return
            exchange.answer(pieces)

        cancel = self._plane.start_infer(request, deliver, plan.signature)
        if not exchange.done:
            exchange.cancel = cancel

    def _run(self, exchange: Exchange, coroutine: Any) -> None:
        async def run() -> None:
            try:
                exchange.answer(await coroutine)
            except Exception as error:
                exchange.fail(error)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the end

    async def _sweep(self) -> None:
        """Ends connections whose request does not arrive, and those that have been idle for long."""
        seen: dict[Connection, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(SWEEP_S)
            now, before, seen = time.monotonic(), seen, {}
            for connection in list(self._connections):
                if not connection.idle:
                    continue
                state = connection.progress
                known = before.get(connection)
                since = known[1] if known is not None and known[0] == state else now
                seen[connection] = state, since
                limit = self.limits.read_timeout_s if connection.reading else self.limits.idle_timeout_s
                if now - since > limit:
                    connection.abort()

    async def stop_accepting(self) -> None:
        """New connections are refused from here on; open ones end after the answers that they wait for."""
        self.draining = True
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Ends every connection once its answers are written."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for connection in list(self._connections):
            connection.close()
        for _ in range(100):
            if not self._connections:
                return
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()
