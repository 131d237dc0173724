"""Header blocks: HEADERS and CONTINUATION frames to the few headers that a gRPC server needs, by the hpack package.

A block is bounded three ways: its bytes, its frames, and what it unpacks to (kilobytes may name table entries of megabytes). Of
what it unpacks to only WANTED is kept. Blocks that only refer to the table are remembered, because that is what clients send
from their second call on.
"""

import hpack

from redline.server.grpc import http2
from redline.server.grpc.http2 import MAX_HEADER_BYTES, ConnectionError2

Headers = dict[str, str]
WANTED = frozenset({
    b":method", b":path", b"authorization", b"content-type", b"grpc-accept-encoding", b"grpc-encoding", b"grpc-timeout",
})  # fmt: skip
MAX_FRAMES = 64
REMEMBERED_BLOCKS = 64
REMEMBERED_BYTES = 64


class Blocks:
    """Fed with the frames of one connection; ``open`` while a block is not complete, when no other frame may come."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=MAX_HEADER_BYTES)
        self._known: dict[bytes, Headers] = {}
        self._block = bytearray()
        self._stream = self._flags = self._frames = 0
        self.open = False

    def begin(self, flags: int, stream: int, payload: memoryview) -> tuple[int, Headers] | None:
        """A HEADERS frame: its flags and headers, None when CONTINUATION frames follow."""
        block = http2.unpad(flags, payload)
        self._check(len(block))
        if flags & http2.END_HEADERS:
            return flags, self._decode(bytes(block))
        self._stream, self._flags, self._frames, self._block = stream, flags, 1, bytearray(block)
        self.open = True
        return None

    def more(self, flags: int, stream: int, payload: memoryview) -> tuple[int, Headers] | None:
        """A CONTINUATION frame: the flags of its HEADERS frame and the headers, when the block is complete."""
        if not self.open or stream != self._stream:
            raise ConnectionError2(http2.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._frames += 1
        self._check(len(self._block) + len(payload))
        self._block += payload
        if not flags & http2.END_HEADERS:
            return None
        block, self._block, self.open = bytes(self._block), bytearray(), False
        return self._flags, self._decode(block)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > MAX_HEADER_BYTES or self._frames > MAX_FRAMES:
            raise ConnectionError2(http2.ENHANCE_YOUR_CALM, "an endless header block")

    def _decode(self, block: bytes) -> Headers:
        """The headers of a block that are wanted; repeated ones are joined."""
        self._frames = 0
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            pairs = self._decoder.decode(block, raw=True)
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise ConnectionError2(http2.COMPRESSION_ERROR, f"header block: {error}") from error
        headers: Headers = {}
        for name, value in pairs:
            if bytes(name) not in WANTED:
                continue
            key, text = bytes(name).decode("latin-1"), bytes(value).decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if not block or min(block) < 0x80:
            self._known.clear()  # the block may have changed the table
        elif len(block) <= REMEMBERED_BYTES:
            if len(self._known) >= REMEMBERED_BLOCKS:
                self._known.clear()
            self._known[block] = headers
        return headers
