"""One HTTP/2 connection of a gRPC client: frames in, calls to the front end, windows and limits kept.

Whatever a peer may send without end has a limit. Frames that carry nothing (PING, SETTINGS, PRIORITY, empty DATA, CONTINUATION)
and streams that end without an answer are paid from budgets, which time and answered calls refill; see docs/server.md.
"""

import asyncio
import socket
from typing import TYPE_CHECKING

from redline.base.log import logger
from redline.server.errors import Kind, ServeError, invalid
from redline.server.grpc import http2
from redline.server.grpc.blocks import Blocks, Headers
from redline.server.grpc.budget import Budget
from redline.server.grpc.framing import timeout_s
from redline.server.grpc.http2 import ConnectionError2
from redline.server.grpc.stream import QUEUED_MESSAGES, Stream
from redline.server.grpc.windows import Windows

DEADLINE_EXCEEDED = 4
MAX_CONCURRENT_STREAMS = 1024
RESETS, RESETS_A_SECOND = 2_048, 100
EMPTY_FRAMES, EMPTY_FRAMES_A_SECOND = 10_000, 1_000

if TYPE_CHECKING:
    from redline.server.grpc.front import GrpcFront


class GrpcConnection(asyncio.Protocol):
    """The protocol of one connection; ``windows``: what may be sent on it."""

    def __init__(self, front: "GrpcFront") -> None:
        self._front, self.holding = front, front.holding
        self._incoming, self._blocks = http2.Incoming(self._on_frame), Blocks()
        self._streams: dict[int, Stream] = {}
        self.windows = Windows(self._streams)
        self._last, self._received = 0, 0
        self._resets = Budget("calls are cancelled", RESETS, RESETS_A_SECOND)
        self._empty = Budget("frames carry nothing", EMPTY_FRAMES, EMPTY_FRAMES_A_SECOND)
        self._since: dict[int, float] = {}  # when a sweep first saw what has not arrived, by stream; 0 for the preface
        self._closing = self._going = False

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a peer that vanished is noticed in the end
        self._front.opened(self)
        settings = (
            (http2.CONCURRENT_STREAMS, MAX_CONCURRENT_STREAMS), (http2.INITIAL_WINDOW, http2.STREAM_WINDOW),
            (http2.FRAME_SIZE, http2.MAX_FRAME), (http2.HEADER_LIST, http2.MAX_HEADER_BYTES),
        )  # fmt: skip
        payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in settings)
        more = http2.CONNECTION_WINDOW - http2.DEFAULT_WINDOW
        update = http2.frame(http2.WINDOW_UPDATE, 0, 0, more.to_bytes(4, "big"))
        self.write(http2.frame(http2.SETTINGS, 0, 0, payload) + update)

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._front.closed(self)
        for stream in list(self._streams.values()):
            stream.abandon()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._incoming.feed(data)
        except ConnectionError2 as error:
            self._fail(error)
        except Exception:
            logger.exception("[grpc] a connection failed")
            self._fail(ConnectionError2(http2.INTERNAL_ERROR, "internal error"))

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._closing:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _fail(self, error: ConnectionError2) -> None:
        payload = self._last.to_bytes(4, "big") + error.code.to_bytes(4, "big") + str(error).encode("ascii", "replace")[:200]
        self.write(http2.frame(http2.GOAWAY, 0, 0, payload))
        self._closing = True
        self._transport.close()

    def go_away(self) -> None:
        """No new calls from here on; the connection ends with the last one under way."""
        if not self._going:
            self._going = True
            self.write(http2.frame(http2.GOAWAY, 0, 0, self._last.to_bytes(4, "big") + bytes(4)))
            self._end_when_empty()

    def _end_when_empty(self) -> None:
        if self._going and not self._streams and not self._closing:
            self._closing = True
            self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def ended(self, stream: Stream, code: int, answered: bool) -> None:
        """A stream is over; ``answered``: with an answer, be it an error."""
        self._streams.pop(stream.id, None)
        if self._front.log is not None:
            self._front.log(stream.path, code, stream.started_s, stream.request_bytes, stream.response_bytes)
        self.windows.forget(stream)
        if answered:
            self._resets.earn()
            self._empty.earn()
        if self._going:
            self._end_when_empty()

    def sweep(self, now: float, limit_s: float) -> None:
        """Ends what does not arrive: the preface, a header block, the message of a unary call."""
        awaited = [stream.id for stream in self._streams.values() if stream.awaits_message]
        if self._blocks.open or not self._incoming.started:
            awaited.append(0)
        self._since = {number: self._since.get(number, now) for number in awaited}
        late = [number for number, since in self._since.items() if now - since > limit_s]
        if 0 in late:
            self.abort()
            return
        for number in late:
            self._streams[number].reset(http2.CANCEL)

    # -- frames

    def _on_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        if self._blocks.open and kind != http2.CONTINUATION:
            raise ConnectionError2(http2.PROTOCOL_ERROR, "a frame inside a header block")
        if kind == http2.DATA:
            self._on_data(flags, number, payload)
        elif kind == http2.HEADERS:
            if not number & 1:
                raise ConnectionError2(http2.PROTOCOL_ERROR, f"HEADERS on stream {number}")
            self._on_block(number, self._blocks.begin(flags, number, payload))
        elif kind == http2.WINDOW_UPDATE:
            self._on_window(number, payload)
        elif kind == http2.PING:
            if len(payload) != 8 or number:
                raise ConnectionError2(http2.FRAME_SIZE_ERROR, "a PING of the wrong form")
            self._empty.spend()
            if not flags & http2.ACK:
                self.write(http2.frame(http2.PING, http2.ACK, 0, bytes(payload)))
        elif kind == http2.SETTINGS:
            self._on_settings(flags, number, payload)
        elif kind == http2.RST_STREAM:
            self._on_reset(number, payload)
        elif kind == http2.CONTINUATION:
            self._empty.spend()
            self._on_block(number, self._blocks.more(flags, number, payload))
        elif kind == http2.PUSH_PROMISE:
            raise ConnectionError2(http2.PROTOCOL_ERROR, "a client cannot push")
        else:
            self._empty.spend()  # PRIORITY, GOAWAY, and kinds that we do not know

    def _on_block(self, number: int, block: tuple[int, Headers] | None) -> None:
        if block is None:
            return
        flags, headers = block
        stream = self._streams.get(number)
        if stream is not None:
            if not flags & http2.END_STREAM:
                raise ConnectionError2(http2.PROTOCOL_ERROR, "trailers that do not end the stream")
            self._caller_done(stream)
            return
        if number <= self._last:
            if flags & http2.END_STREAM:
                return  # trailers of a call that was answered early
            raise ConnectionError2(http2.STREAM_CLOSED, f"HEADERS on closed stream {number}")
        self._last = number
        if self._going or len(self._streams) >= MAX_CONCURRENT_STREAMS:
            self._resets.spend()
            self.write(http2.frame(http2.RST_STREAM, 0, number, http2.REFUSED_STREAM.to_bytes(4, "big")))
            return
        stream = self._streams[number] = Stream(self, number, headers, self._front.limits.body_bytes)
        self._begin(stream, headers)
        if flags & http2.END_STREAM and stream.open:
            self._caller_done(stream)

    def _begin(self, stream: Stream, headers: Headers) -> None:
        if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith("application/grpc"):
            stream.finish(Kind.INVALID.grpc, "[grpc] this port speaks gRPC: expected POST of application/grpc")
            return
        seconds = timeout_s(headers["grpc-timeout"]) if "grpc-timeout" in headers else None
        if seconds is not None:
            stream.timer = asyncio.get_running_loop().call_later(seconds, self._time_out, stream)
        self._front.begin(stream, headers)

    @staticmethod
    def _time_out(stream: Stream) -> None:
        stream.fail(DEADLINE_EXCEEDED, "[grpc] the caller's deadline has passed")

    def _on_data(self, flags: int, number: int, payload: memoryview) -> None:
        size = len(payload)
        if not size and not flags & http2.END_STREAM:
            self._empty.spend()
        self._received += size
        if self._received > http2.CONNECTION_WINDOW // 2:
            self._replenish()
        stream = self._streams.get(number)
        if stream is None:
            if number > self._last or not number & 1:
                raise ConnectionError2(http2.PROTOCOL_ERROR, f"DATA on stream {number}, which is not open")
            return
        if flags & http2.PADDED:
            payload = http2.unpad(flags & http2.PADDED, payload)
        stream.received += size
        if stream.received > http2.STREAM_WINDOW:
            raise ConnectionError2(http2.FLOW_CONTROL_ERROR, f"stream {number} overran its window")
        try:
            stream.take(size)
            messages = stream.messages.feed(payload) if payload else []
        except ServeError as error:
            stream.fail(error.kind.grpc, str(error))
            return
        for message in messages:
            if stream.open:
                self._front.message(stream, message)
        if flags & http2.END_STREAM:
            if stream.open:
                self._caller_done(stream)
        elif stream.open and stream.received > http2.STREAM_WINDOW // 2:
            if stream.incoming is not None and stream.incoming.qsize() >= QUEUED_MESSAGES:
                stream.credit = False
            else:
                self.give_credit(stream)

    def give_credit(self, stream: Stream) -> None:
        """Lets the caller send as much again as has been received."""
        if stream.received and stream.open:
            self.write(http2.frame(http2.WINDOW_UPDATE, 0, stream.id, stream.received.to_bytes(4, "big")))
            stream.received = 0

    def _replenish(self) -> None:
        unfinished = sum(stream.messages.num_bytes for stream in self._streams.values())
        if unfinished > 2 * self._front.limits.body_bytes + http2.CONNECTION_WINDOW:
            raise ConnectionError2(http2.ENHANCE_YOUR_CALM, "too many unfinished messages")
        self.write(http2.frame(http2.WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
        self._received = 0

    def _caller_done(self, stream: Stream) -> None:
        if stream.incoming is not None:
            if stream.messages.partial:
                error = invalid("grpc", "the stream ends inside a message")
                stream.finish(error.kind.grpc, str(error))
            else:
                stream.incoming.put_nowait(None)
        else:
            self._front.caller_done(stream)

    def _on_window(self, number: int, payload: memoryview) -> None:
        overflowing = self.windows.update(number, payload)
        if overflowing is not None:
            self._resets.spend()
            overflowing.reset(http2.FLOW_CONTROL_ERROR)

    def _on_settings(self, flags: int, number: int, payload: memoryview) -> None:
        if number or len(payload) % 6 or (flags & http2.ACK and payload):
            raise ConnectionError2(http2.FRAME_SIZE_ERROR, "SETTINGS of the wrong form")
        if flags & http2.ACK:
            return
        self._empty.spend(1 + len(self._streams) // 16)
        self.windows.settle(payload)
        self.write(http2.frame(http2.SETTINGS, http2.ACK, 0))
        for stream in list(self._streams.values()):
            stream.flush()

    def _on_reset(self, number: int, payload: memoryview) -> None:
        if len(payload) != 4 or not number or number > self._last:
            raise ConnectionError2(http2.PROTOCOL_ERROR, "RST_STREAM of the wrong form")
        stream = self._streams.get(number)
        if stream is not None:
            self._resets.spend()
            stream.abandon()
