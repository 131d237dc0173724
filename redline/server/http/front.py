"""The HTTP front end: listens, hands requests to their handlers, enforces limits, and ends when it is drained."""

import hmac
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redline.server.dataplane import DataPlane
from redline.server.errors import Kind, ServeError, unavailable
from redline.server.http.answer import respond
from redline.server.http.bodies import decompress
from redline.server.http.connection import Connection
from redline.server.http.exchange import Exchange
from redline.server.http.head import Heads
from redline.server.http.infer import Plans, split
from redline.server.http.routes import Routes
from redline.server.limits import Limits
from redline.server.listener import Listener
from redline.server.types import Result

SCRATCH_BYTES = 256 << 10


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
        self._listener = Listener[Connection](lambda: Connection(self), self._sweep)
        self._idle: dict[Connection, tuple[int, float]] = {}  # how far it had come, and since when it has been there
        self.holding, self.draining = plane.holding, False

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Starts to accept connections; the port in use (``port`` 0: a free one)."""
        return await self._listener.listen(host, port, tls)

    def opened(self, connection: Connection) -> None:
        self._listener.connections.add(connection)
        if len(self._listener.connections) > self.limits.connections:
            connection.refuse(unavailable("server", f"{self.limits.connections} connections are open", "that is its limit"))

    def closed(self, connection: Connection) -> None:
        self._listener.connections.discard(connection)

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
                exchange.replace(decompress(head.content_encoding, exchange.body, self.limits.body_bytes))
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

        self._listener.run(run())

    # -- the end

    def _sweep(self) -> None:
        """Ends connections whose request does not arrive, and those that have been idle for long."""
        now, before, self._idle = time.monotonic(), self._idle, {}
        for connection in list(self._listener.connections):
            if not connection.idle:
                continue
            state = connection.progress
            known = before.get(connection)
            since = known[1] if known is not None and known[0] == state else now
            self._idle[connection] = state, since
            limit = self.limits.read_timeout_s if connection.reading else self.limits.idle_timeout_s
            if now - since > limit:
                connection.abort()

    async def stop_accepting(self) -> None:
        """New connections are refused from here on; open ones end after the answers that they wait for."""
        self.draining = True
        self._listener.stop_accepting()

    async def close(self) -> None:
        """Ends every connection once its answers are written."""
        await self._listener.finish()
        for connection in list(self._listener.connections):
            connection.close()
        await self._listener.close()
