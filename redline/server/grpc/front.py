"""The gRPC front end on our own HTTP/2: the calls of a connection go to the service, inference without a coroutine."""

import asyncio
import hmac
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from redline.server import proto
from redline.server.dataplane import DataPlane
from redline.server.errors import Kind, kind_of, text_of
from redline.server.grpc.blocks import Headers
from redline.server.grpc.connection import GrpcConnection
from redline.server.grpc.fast import FastInfer
from redline.server.grpc.service import Service
from redline.server.grpc.stream import Stream
from redline.server.limits import Limits
from redline.server.listener import Listener
from redline.server.types import Result

HEALTH = "/grpc.health.v1.Health/Check"
INFER = f"/{proto.SERVICE}/ModelInfer"
STREAM = f"/{proto.SERVICE}/ModelStreamInfer"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse with its one field set
CODINGS = ("none", "deflate", "gzip")
Log = Callable[[str, int, float, int, int], None]  # path, status, when it began, bytes of its messages, bytes of the answer


def status_of(error: BaseException) -> tuple[int, str]:
    """The number of the gRPC status and the text for the caller."""
    if isinstance(error, DecodeError):
        return Kind.INVALID.grpc, "[grpc] the message cannot be parsed"
    return kind_of(error).grpc, text_of(error)


class GrpcFront:
    """Listens, and hands every call to the service. ``compression``: of answers, for clients that accept it."""

    def __init__(
        self, plane: DataPlane, limits: Limits, token: str = "", compression: str = "none", log: Log | None = None
    ) -> None:
        self._plane, self.limits, self.log = plane, limits, log
        self._compression, self.holding = compression, plane.holding
        self._service = Service(plane)
        self._fast = FastInfer(plane.regions)
        self._unary = {
            f"/{proto.SERVICE}/{name}": (getattr(proto, proto.METHODS[name].input_type.name).FromString, method)
            for name, method in self._service.unary.items()
        }
        self._paths = {path: path for path in (*self._unary, STREAM, HEALTH)}
        self._token = f"Bearer {token}".encode() if token else b""
        self._listener = Listener[GrpcConnection](lambda: GrpcConnection(self), self._sweep)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Starts to accept connections; the port in use."""
        return await self._listener.listen(host, port, tls)

    def opened(self, connection: GrpcConnection) -> None:
        self._listener.connections.add(connection)
        if len(self._listener.connections) > self.limits.connections:
            connection.abort()

    def closed(self, connection: GrpcConnection) -> None:
        self._listener.connections.discard(connection)

    # -- calls

    def begin(self, stream: Stream, headers: Headers) -> None:
        """The head of a call is there."""
        if self.log is not None:
            stream.started_s = time.perf_counter()
        path = headers.get(":path", "")
        known = stream.path = self._paths.get(path, "")
        if self._token and path != HEALTH:
            given = headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, self._token):
                stream.finish(Kind.UNAUTHENTICATED.grpc, "[grpc] the bearer token is missing or wrong")
                return
        if self._compression != "none" and self._compression in headers.get("grpc-accept-encoding", ""):
            stream.coding = self._compression
        if path == STREAM:
            stream.incoming = asyncio.Queue()
            self._run(stream, self._converse(stream))
        elif not known:
            stream.finish(Kind.UNSUPPORTED.grpc, f"[grpc] there is no method {path[:200]!r}")

    def message(self, stream: Stream, message: memoryview) -> None:
        """A message of a call is there."""
        stream.request_bytes += len(message)
        if stream.incoming is not None:
            stream.incoming.put_nowait(message)
        elif stream.cancel is not None:
            stream.fail(Kind.INVALID.grpc, "[grpc] a second message in a unary call")
        elif stream.path == INFER:
            self._infer(stream, message)
        else:
            self._run(stream, self._answer(stream, message))

    def caller_done(self, stream: Stream) -> None:
        """The caller of a unary call has sent everything; the answer may be under way."""
        if stream.cancel is None:
            stream.finish(Kind.INVALID.grpc, "[grpc] the call has no message")

    def _infer(self, stream: Stream, message: memoryview) -> None:
        try:
            request, plan = self._fast.decode(message)
        except Exception as error:
            stream.finish(*status_of(error))
            return

        def deliver(result: Result) -> None:
            stream.cancel = None
            if isinstance(result, BaseException):
                stream.finish(*status_of(result))
                return
            try:
                pieces = self._fast.encode(result, request.outputs, plan)
            except Exception as error:
                stream.finish(*status_of(error))
                return
            stream.reply(pieces)

        cancel = self._plane.start_infer(request, deliver, plan.signature if plan is not None else None)
        if stream.open:
            stream.cancel = cancel

    def _run(self, stream: Stream, coroutine: Any) -> None:
        stream.cancel = self._listener.run(coroutine).cancel

    async def _answer(self, stream: Stream, message: memoryview) -> None:
        try:
            if stream.path == HEALTH:
                stream.reply([SERVING if self._plane.ready() else NOT_SERVING])
                return
            parse, method = self._unary[stream.path]
            stream.reply([(await method(parse(bytes(message)))).SerializeToString()])
        except Exception as error:
            stream.finish(*status_of(error))

    async def _converse(self, stream: Stream) -> None:
        parse = proto.ModelInferRequest.FromString

        async def requests() -> AsyncIterator[Any]:
            async for message in stream.requests():
                yield parse(bytes(message))

        try:
            async for answer in self._service.stream(requests()):
                stream.send([answer.SerializeToString()])
                await stream.sendable()
            stream.finish(0, "")
        except Exception as error:
            stream.finish(*status_of(error))

    # -- the end

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._listener.connections):
            connection.sweep(now, self.limits.read_timeout_s)

    async def stop_accepting(self) -> None:
        """New connections and new calls are refused from here on."""
        self._listener.stop_accepting()
        for connection in list(self._listener.connections):
            connection.go_away()

    async def close(self) -> None:
        """Ends every connection once its answers are written."""
        await self._listener.close()
