"""HTTP/2 (RFC 9113) as far as a gRPC server needs it: frames and settings. Strict about what it receives. No gRPC in it."""

import struct
from collections.abc import Callable, Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
CONCURRENT_STREAMS, INITIAL_WINDOW, FRAME_SIZE, HEADER_LIST = 3, 4, 5, 6
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 2, 3, 5
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 6, 7, 8, 9, 11
HEADER = struct.Struct(">HBBBI")
MAX_FRAME = 1 << 20
MAX_HEADER_BYTES = 16 << 10
DEFAULT_WINDOW = 65_535
STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 64 << 20
MAX_WINDOW = (1 << 31) - 1


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


class Incoming:
    """Splits what is received into frames."""

    def __init__(self, on_frame: Callable[[int, int, int, memoryview], None]) -> None:
        self._on_frame = on_frame
        self._pending = bytearray()
        self._needed = 0  # bytes before which there is nothing to do: a frame that trickles in is looked at once
        self.started = False

    def feed(self, data: bytes) -> None:
        """Calls ``on_frame(kind, flags, stream, payload)`` for every complete frame; payloads are views."""
        if self._pending:
            self._pending += data
            if len(self._pending) < self._needed:
                return
            data, self._pending = bytes(self._pending), bytearray()
        at = 0
        if not self.started:
            if len(data) < len(PREFACE) and PREFACE.startswith(data):
                self._keep(data, 0, len(PREFACE))
                return
            if not data.startswith(PREFACE):
                raise ConnectionError2(PROTOCOL_ERROR, "the connection does not begin as HTTP/2")
            self.started, at = True, len(PREFACE)
        view, end, needed = memoryview(data), len(data), 9
        while end - at >= 9:
            high, low, kind, flags, stream = HEADER.unpack_from(data, at)
            size = high << 8 | low
            if size > MAX_FRAME:
                raise ConnectionError2(FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if end - at - 9 < size:
                needed = 9 + size
                break
            self._on_frame(kind, flags, stream & MAX_WINDOW, view[at + 9 : at + 9 + size])
            at += 9 + size
        self._keep(data, at, needed)

    def _keep(self, data: bytes, at: int, needed: int) -> None:
        if at < len(data):
            self._pending += data[at:]
        self._needed = needed


def settings(payload: memoryview) -> Iterator[tuple[int, int]]:
    """The settings that matter in a SETTINGS frame, checked."""
    for at in range(0, len(payload), 6):
        key, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
        if key == INITIAL_WINDOW and value > MAX_WINDOW:
            raise ConnectionError2(FLOW_CONTROL_ERROR, "an initial window that is too large")
        if key == FRAME_SIZE and not 16_384 <= value < 1 << 24:
            raise ConnectionError2(PROTOCOL_ERROR, "a frame size out of range")
        if key in (INITIAL_WINDOW, FRAME_SIZE):
            yield key, value


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
