"""One HTTP connection: takes requests off the wire, and writes their answers back in the order in which they came.

Small requests are handled out of the server's one receive buffer, copied once. The body of a large one is received straight
into memory of its own, aligned so that its tensors can be run where they lie.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from redline.server.errors import Kind, ServeError, invalid
from redline.server.http.chunks import Chunks
from redline.server.http.exchange import Exchange
from redline.server.http.head import MAX_HEAD_BYTES, Head

if TYPE_CHECKING:
    from redline.server.http.front import HttpFront

MAX_PIPELINED = 32
ALIGN = 64
JOIN_BELOW = 16 << 10
LINGER_S = 2.0
END = b"\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """The protocol of one connection; ``front`` says what to do with requests."""

    def __init__(self, front: "HttpFront") -> None:
        self._front, self.holding = front, front.holding
        self._transport: asyncio.Transport
        self._pending = b""  # what is received of the next head, or of a body that is small
        self._head: Head | None = None
        self._body: memoryview | None = None  # a large body, of which ``_filled`` bytes are there
        self._filled = 0
        self._chunks: Chunks | None = None
        self._taken = 0  # bytes taken for the body that is arriving
        self._exchanges: deque[Exchange] = deque()
        self._paused = self._closing = self._held = self._refused = False
        self.progress = 0  # grows with every request

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._front.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._front.closed(self)
        self.holding.give(self._taken)
        self._taken = 0
        for exchange in self._exchanges:
            exchange.abandon()
        self._exchanges.clear()

    def get_buffer(self, sizehint: int) -> Any:
        return self._front.scratch if self._body is None else self._body[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        if self._body is not None:
            self._on_body(self._body, nbytes)
            return
        self._pending = self._pending + self._front.scratch[:nbytes] if self._pending else bytes(self._front.scratch[:nbytes])
        self._parse()

    def _on_body(self, body: memoryview, nbytes: int) -> None:
        self._filled += nbytes
        try:
            self._take_room(nbytes)
        except ServeError as error:
            self.refuse(error)
            return
        if self._filled == len(body):
            self._complete(body)
            self._parse()

    def eof_received(self) -> bool:
        return False  # a client that stops sending is gone: the connection ends and what it waited for is cancelled

    def pause_writing(self) -> None:
        self._paused = True
        self._hold()

    def resume_writing(self) -> None:
        self._paused = False
        self._hold()

    def _hold(self) -> None:
        """Reads no more while the client leaves answers lying, or has many requests under way."""
        hold = self._paused or len(self._exchanges) >= MAX_PIPELINED
        if hold == self._held or self._closing:
            return
        self._held = hold
        if hold:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self._parse()

    # -- framing

    def _parse(self) -> None:
        """Takes every complete request off what is pending."""
        try:
            while not self._closing and not self._held and self._body is None and self._take():
                pass
        except ServeError as error:
            self.refuse(error)

    def _take(self) -> bool:
        """Takes one step; False when more bytes are needed."""
        if self._chunks is not None:
            return self._take_chunks()
        if self._head is None and not self._take_head():
            return False
        head = self._head
        if head is None:
            return True
        if head.body_bytes < 0:
            self._chunks = Chunks(self._front.limits.body_bytes)
            return bool(self._pending)
        if len(self._pending) >= head.body_bytes:
            body, self._pending = self._pending[: head.body_bytes], self._pending[head.body_bytes :]
            self._complete(memoryview(body))
            return bool(self._pending)
        if head.body_bytes > len(self._front.scratch) // 4:
            self._receive_into(head)
        return False

    def _take_head(self) -> bool:
        pending = self._pending
        end = pending.find(END)
        if end < 0:
            if len(pending) > MAX_HEAD_BYTES:
                raise invalid("http", "the head of the request is too long", f"allowed: {MAX_HEAD_BYTES} bytes")
            return False
        if end > MAX_HEAD_BYTES:
            raise invalid("http", "the head of the request is too long", f"allowed: {MAX_HEAD_BYTES} bytes")
        if pending.startswith(b"\r\n"):
            self._pending = pending[2:]  # empty lines between requests are allowed
            return True
        head = self._front.heads(pending[: end + 4])
        self._pending = pending[end + 4 :]
        limit = self._front.limits.body_bytes
        if head.body_bytes > limit:
            raise ServeError(Kind.TOO_LARGE, "http", f"the body has {head.body_bytes} bytes", f"allowed: {limit}")
        if head.expects_continue and len(self._pending) < abs(head.body_bytes):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._head = head
        return True

    def _take_chunks(self) -> bool:
        chunks = self._chunks
        assert chunks is not None
        data, self._pending = self._pending, b""
        chunks.feed(data)
        self._take_room(chunks.num_bytes - self._taken)
        if chunks.complete:
            self._chunks, self._pending = None, chunks.rest
            self._complete(memoryview(chunks.body))
            return bool(self._pending)
        return False

    def _receive_into(self, head: Head) -> None:
        """Memory for a large body, in which the first tensor is aligned."""
        self._take_room(len(self._pending))
        memory = np.empty(head.body_bytes + ALIGN, np.uint8)
        shift = -(memory.__array_interface__["data"][0] + max(0, head.json_bytes)) % ALIGN
        self._body = memory[shift : shift + head.body_bytes].data
        self._filled = len(self._pending)
        self._body[: self._filled] = self._pending
        self._pending = b""

    def _take_room(self, num_bytes: int) -> None:
        self.holding.take(num_bytes)
        self._taken += num_bytes

    def _complete(self, body: memoryview) -> None:
        head = self._head
        assert head is not None
        self._head = self._body = None
        exchange = Exchange(self, head, body, self._taken)
        self._taken = 0
        self._exchanges.append(exchange)
        self.progress += 1
        self._front.handle(exchange)
        if len(self._exchanges) >= MAX_PIPELINED:
            self._hold()

    # -- answers

    def answered(self, exchange: Exchange) -> None:
        """Writes the answers that are next in line."""
        if self._transport.is_closing():
            return
        while self._exchanges and self._exchanges[0].pieces is not None:
            self._write(self._exchanges.popleft())
        if self._held and not self._paused:
            self._hold()

    def _write(self, exchange: Exchange) -> None:
        pieces = exchange.pieces or []
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif sum(map(len, pieces)) < JOIN_BELOW:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)
        front = self._front
        if front.log is not None:
            front.log(exchange)
        if not exchange.head.keep_alive or (front.draining and not self._exchanges):
            self.close()

    def refuse(self, error: ServeError) -> None:
        """Answers what cannot be framed, after everything before it, and ends the connection."""
        head = Head("", "", (), "", keep_alive=False, body_bytes=0)
        exchange = Exchange(self, head, memoryview(b""))
        self._pending, self._body, self._head, self._chunks = b"", None, None, None
        self.holding.give(self._taken)
        self._taken = 0
        self._exchanges.append(exchange)
        self._closing = self._refused = True
        exchange.fail(error)

    @property
    def idle(self) -> bool:
        return not self._exchanges

    @property
    def reading(self) -> bool:
        """Whether a request has begun and is not all there."""
        return bool(self._pending) or self._head is not None or self._body is not None

    def close(self) -> None:
        """Ends the connection after what has been written is sent.

        After a refusal the client may be sending still: what comes is dropped for a while, because closing at once would reset
        the connection and lose the answer.
        """
        self._closing = True
        if self._refused and self._transport.can_write_eof() and not self._transport.is_closing():
            self._refused = False
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)
        else:
            self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()
