"""The gRPC front end on our own HTTP/2: the calls of a connection go to the service, inference without a coroutine."""

import asyncio
import hmac
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
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
from redline.server.types import Result

HEALTH = "/grpc.health.v1.Health/Check"
INFER = f"/{proto.SERVICE}/ModelInfer"
STREAM = f"/{proto.SERVICE}/ModelStreamInfer"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse with its one field set
CODINGS = ("none", "deflate", "gzip")
SWEEP_S = 2.0
Log = Callable[[str, int, float, int, int], None]  # path, status, when it began, bytes of its messages, bytes of the answer


@dataclass(frozen=True)
class GrpcOptions:
    """``compression``: of answers, for clients that accept it."""

    message_bytes: int = 256 << 20
    token: str = ""
    compression: str = "none"
    max_concurrent_streams: int = 1024
    connections: int = 4096
    read_timeout_s: float = 30.0


def status_of(error: BaseException) -> tuple[int, str]:
    """The number of the gRPC status and the text for the caller."""
    if isinstance(error, DecodeError):
        return Kind.INVALID.grpc, "[grpc] the message cannot be parsed"
    return kind_of(error).grpc, text_of(error)


class GrpcFront:
    """Listens, and hands every call to the service."""

    def __init__(self, plane: DataPlane, options: GrpcOptions, log: Log | None = None) -> None:
        self._plane, self.options, self.log = plane, options, log
        self._service = Service(plane)
        self._fast = FastInfer(plane.regions)
        self._unary = {
            f"/{proto.SERVICE}/{name}": (getattr(proto, proto.METHODS[name].input_type.name).FromString, method)
            for name, method in self._service.unary.items()
        }
        self._paths = {path: path for path in (*self._unary, STREAM, HEALTH)}
        self._token = f"Bearer {options.token}".encode() if options.token else b""
        self._connections: set[GrpcConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Starts to accept connections; the port in use."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: GrpcConnection(self), host, port, ssl=tls, backlog=1024)
        self._sweeper = loop.create_task(self._sweep())
        return int(self._server.sockets[0].getsockname()[1])

    def opened(self, connection: GrpcConnection) -> None:
        self._connections.add(connection)
        if len(self._connections) > self.options.connections:
            connection.abort()

    def closed(self, connection: GrpcConnection) -> None:
        self._connections.discard(connection)

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
        if self.options.compression != "none" and self.options.compression in headers.get("grpc-accept-encoding", ""):
            stream.coding = self.options.compression
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
        task = asyncio.get_running_loop().create_task(coroutine)
        stream.cancel = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.sweep(now, self.options.read_timeout_s)

    async def stop_accepting(self) -> None:
        """New connections and new calls are refused from here on."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.go_away()

    async def close(self) -> None:
        """Ends every connection once its answers are written."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for _ in range(100):
            if not self._connections:
                return
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()
