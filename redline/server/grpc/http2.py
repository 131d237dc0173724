"""HTTP/2 (RFC 9113) as far as a gRPC server needs it: frames, header blocks, flow control. One connection, no gRPC in it.

Strict about what it receives, with limits on everything that a peer can make it keep. Header blocks are decoded by the hpack
package; blocks that only refer to the table are remembered, because that is what clients send from their second request on.
"""

import struct
from collections.abc import Callable

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 2, 3, 5
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 6, 7, 8, 9, 11
HEADER = struct.Struct(">HBBBI")
MAX_FRAME = 1 << 20
MAX_HEADER_BYTES = 64 << 10
DEFAULT_WINDOW = 65_535
STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 64 << 20
MAX_WINDOW = (1 << 31) - 1
REMEMBERED_BLOCKS = 64
MAX_RESETS = 20_000  # of streams that the peer cancelled, over those that it let finish

Headers = dict[str, str]


class ConnectionError2(Exception):
    """The connection must end, with an error code of HTTP/2."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    return HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def frame_head(kind: int, flags: int, stream: int, num_bytes: int) -> bytes:
    return HEADER.pack(num_bytes >> 8, num_bytes & 0xFF, kind, flags, stream)


class Blocks:
    """Decodes header blocks."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=MAX_HEADER_BYTES)
        self._known: dict[bytes, Headers] = {}

    def __call__(self, block: bytes) -> Headers:
        """The headers of a block; repeated ones are joined. Raises ConnectionError2 for a block that cannot be decoded."""
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            pairs = self._decoder.decode(block, raw=True)
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise ConnectionError2(COMPRESSION_ERROR, f"header block: {error}") from error
        headers: Headers = {}
        for name, value in pairs:
            key, text = bytes(name).decode("latin-1"), bytes(value).decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if block and min(block) >= 0x80:
            if len(self._known) >= REMEMBERED_BLOCKS:
                self._known.clear()
            self._known[block] = headers
        else:
            self._known.clear()  # the block may have changed the table
        return headers


class Incoming:
    """Splits what is received into frames."""

    def __init__(self, on_frame: Callable[[int, int, int, memoryview], None]) -> None:
        self._on_frame = on_frame
        self._pending = b""
        self._started = False

    def feed(self, data: bytes) -> None:
        """Calls ``on_frame(kind, flags, stream, payload)`` for every complete frame; payloads are views."""
        if self._pending:
            data = self._pending + data
        at = 0
        if not self._started:
            if len(data) < len(PREFACE) and PREFACE.startswith(data):
                self._pending = data
                return
            if not data.startswith(PREFACE):
                raise ConnectionError2(PROTOCOL_ERROR, "the connection does not begin as HTTP/2")
            self._started, at = True, len(PREFACE)
        view, end = memoryview(data), len(data)
        while end - at >= 9:
            high, low, kind, flags, stream = HEADER.unpack_from(data, at)
            size = high << 8 | low
            if size > MAX_FRAME:
                raise ConnectionError2(FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if end - at - 9 < size:
                break
            self._on_frame(kind, flags, stream & MAX_WINDOW, view[at + 9 : at + 9 + size])
            at += 9 + size
        self._pending = data[at:]


def unpad(flags: int, payload: memoryview) -> memoryview:
    """The payload without its padding and, for HEADERS, without the priority fields."""
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise ConnectionError2(PROTOCOL_ERROR, "padding longer than its frame")
        payload = payload[1 : len(payload) - payload[0]]
    if flags & PRIORITISED:
        if len(payload) < 5:
            raise ConnectionError2(FRAME_SIZE_ERROR, "a HEADERS frame without its priority")
        payload = payload[5:]
    return payload
