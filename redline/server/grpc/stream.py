"""One gRPC call on an HTTP/2 connection: its messages in, its answer out, under flow control."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from redline.server.grpc import http2
from redline.server.grpc.blocks import Headers
from redline.server.grpc.framing import OK, PREFIX, RESPONSE, Messages, only_status, pack, status

if TYPE_CHECKING:
    from redline.server.grpc.connection import GrpcConnection

Pieces = Sequence[bytes | memoryview]
SENDABLE_BELOW = 1 << 20
QUEUED_MESSAGES = 16
CANCELLED = 1


class Stream:
    """``cancel`` is called when the caller resets the stream or goes away; ``incoming`` is set for a streaming call."""

    __slots__ = (
        "_code", "_connection", "_out", "_out_bytes", "_room", "_started", "_trailers", "cancel", "coding", "credit", "id",
        "incoming", "messages", "open", "path", "received", "request_bytes", "response_bytes", "started_s", "taken", "timer",
        "window",
    )  # fmt: skip

    def __init__(self, connection: "GrpcConnection", number: int, headers: Headers, limit: int) -> None:
        self._connection, self.id, self.path = connection, number, ""
        self.window = connection.windows.initial
        self.messages = Messages(limit, headers.get("grpc-encoding", ""))
        self.cancel: Callable[[], Any] | None = None
        self.incoming: asyncio.Queue[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.request_bytes = self.response_bytes = 0  # of the messages
        self.received = 0  # bytes since the last window update
        self.taken = 0  # bytes of what the server may hold
        self.credit = True  # whether the caller may send more at once
        self.open, self.coding, self.started_s = True, "", 0.0
        self._out: deque[bytes | memoryview] = deque()
        self._out_bytes, self._started, self._trailers, self._code = 0, False, b"", 0
        self._room: asyncio.Event | None = None

    # -- answers

    def reply(self, pieces: Pieces) -> None:
        """The one message of a unary answer, and the end of the call."""
        if not self.open:
            return
        size = self.response_bytes = sum(map(len, pieces))
        total = PREFIX.size + size
        connection, windows = self._connection, self._connection.windows
        if self.coding or self._started or total > min(self.window, windows.total, windows.frame):
            self.response_bytes = 0
            self.send(pieces)
            self.finish(0, "")
            return
        self.window -= total
        windows.total -= total
        number = self.id
        connection.write(
            b"".join((
                http2.frame_head(http2.HEADERS, http2.END_HEADERS, number, len(RESPONSE)), RESPONSE,
                http2.frame_head(http2.DATA, 0, number, total), PREFIX.pack(0, size), *pieces,
                http2.frame_head(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, number, len(OK)), OK,
            ))
        )  # fmt: skip
        self._end(0)

    def send(self, pieces: Pieces) -> None:
        """One message; what does not fit the windows waits."""
        if not self.open:
            return
        if not self._started:
            self._start()
        data = pack(b"".join(pieces), self.coding)
        self._out.append(data)
        self.response_bytes += len(data) - PREFIX.size
        self._out_bytes += len(data)
        self.flush()

    def finish(self, code: int, text: str) -> None:
        """Ends the call with a status, after everything that waits."""
        if not self.open:
            return
        if not self._started:
            block = only_status(code, text)
            self._connection.write(http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, self.id, block))
            self._end(code)
            return
        self._trailers, self._code = status(code, text) if code else OK, code
        self.flush()

    def fail(self, code: int, text: str) -> None:
        """``finish``, and what works for the call is cancelled."""
        cancel, self.cancel = self.cancel, None
        self.finish(code, text)
        if cancel is not None:
            cancel()

    def _start(self) -> None:
        self._started = True
        block = RESPONSE
        if self.coding:
            block += b"\x00\x0dgrpc-encoding" + bytes([len(self.coding)]) + self.coding.encode()
        self._connection.write(http2.frame(http2.HEADERS, http2.END_HEADERS, self.id, block))

    def flush(self) -> None:
        """Sends what the windows allow; the trailers when nothing waits any more."""
        connection, windows = self._connection, self._connection.windows
        while self._out and self.open:
            room = min(self.window, windows.total, windows.frame)
            if room <= 0:
                if windows.total <= 0 < self.window:
                    windows.block(self)
                return
            piece = memoryview(self._out.popleft())
            part, rest = piece[:room], piece[room:]
            if rest:
                self._out.appendleft(rest)
            self.window -= len(part)
            windows.total -= len(part)
            self._out_bytes -= len(part)
            connection.write(http2.frame_head(http2.DATA, 0, self.id, len(part)) + part)
        if self._room is not None and self._out_bytes < SENDABLE_BELOW:
            self._room.set()
        if self._trailers and self.open and not self._out:
            ending = http2.END_HEADERS | http2.END_STREAM
            connection.write(http2.frame(http2.HEADERS, ending, self.id, self._trailers))
            self._end(self._code)

    async def sendable(self) -> None:
        """Returns when little enough waits to be sent."""
        while self.open and self._out_bytes >= SENDABLE_BELOW:
            self._room = asyncio.Event()
            await self._room.wait()
        self._room = None

    def reset(self, code: int) -> None:
        """Ends the stream without an answer, and what works for it."""
        if self.open:
            self._connection.write(http2.frame(http2.RST_STREAM, 0, self.id, code.to_bytes(4, "big")))
        self.abandon()

    def _end(self, code: int = CANCELLED, answered: bool = True) -> None:
        self.open, self.cancel = False, None
        self._give(self.taken)
        if self.timer is not None:
            self.timer.cancel()
        if self.incoming is not None:
            self.incoming.put_nowait(None)
        if self._room is not None:
            self._room.set()
        self._connection.ended(self, code, answered)

    def abandon(self) -> None:
        """The caller has gone: cancels whatever works for it."""
        cancel, self.cancel = self.cancel, None
        if self.open:
            self._end(answered=False)
        if cancel is not None:
            cancel()

    @property
    def awaits_message(self) -> bool:
        """Whether it is a unary call whose message has not come."""
        return self.open and self.cancel is None and self.incoming is None and not self._started

    # -- requests

    def take(self, num_bytes: int) -> None:
        """Bytes have come and are held until the call ends or its handler has them; raises ServeError if there is no room."""
        self._connection.holding.take(num_bytes)
        self.taken += num_bytes

    def _give(self, num_bytes: int) -> None:
        self._connection.holding.give(num_bytes)
        self.taken -= num_bytes

    async def requests(self) -> AsyncIterator[memoryview]:
        """The messages of a streaming call as they come; gives the caller credit as they are taken."""
        assert self.incoming is not None
        while (message := await self.incoming.get()) is not None:
            if not self.credit and self.incoming.qsize() < QUEUED_MESSAGES // 2:
                self.credit = True
                self._connection.give_credit(self)
            yield message
            self._give(min(self.taken, PREFIX.size + len(message)))
