"""gRPC on top of HTTP/2: length-prefixed messages, their compression, timeouts, statuses."""

import re
import struct
import zlib
from urllib.parse import quote

from redline.server.errors import Kind, ServeError, invalid

PREFIX = struct.Struct(">BI")
WINDOW_BITS = {"gzip": 31, "deflate": 15}
UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Messages:
    """Takes messages out of the bytes of a stream. ``limit``: the most bytes of one message, compressed or not."""

    def __init__(self, limit: int, coding: str) -> None:
        self._limit, self._coding = limit, coding
        self._pending = bytearray()
        self.num_bytes = 0

    def feed(self, data: memoryview) -> list[memoryview]:
        """The messages that are complete now."""
        if not self._pending and len(data) >= PREFIX.size:
            flag, size = PREFIX.unpack_from(data, 0)
            if flag == 0 and len(data) == PREFIX.size + size and size <= self._limit:
                return [memoryview(bytes(data[PREFIX.size :]))]
        self._pending += data
        found = []
        while len(self._pending) >= PREFIX.size:
            flag, size = PREFIX.unpack_from(self._pending, 0)
            if size > self._limit:
                raise ServeError(Kind.TOO_LARGE, "grpc", f"a message of {size} bytes", f"allowed: {self._limit}")
            if len(self._pending) < PREFIX.size + size:
                break
            message = bytes(memoryview(self._pending)[PREFIX.size : PREFIX.size + size])
            del self._pending[: PREFIX.size + size]
            found.append(memoryview(self._plain(flag, message)))
        self.num_bytes = len(self._pending)
        return found

    @property
    def partial(self) -> bool:
        return bool(self._pending)

    def _plain(self, flag: int, message: bytes) -> bytes:
        if flag == 0:
            return message
        if flag != 1 or self._coding not in WINDOW_BITS:
            seen = f"a message compressed as {self._coding or 'nothing'!r}"
            raise ServeError(Kind.UNSUPPORTED, "grpc", seen, f"allowed: identity, {', '.join(WINDOW_BITS)}")
        unpacker = zlib.decompressobj(WINDOW_BITS[self._coding])
        try:
            plain = unpacker.decompress(message, self._limit + 1)
        except zlib.error as error:
            raise invalid("grpc", f"a message is not {self._coding}: {error}") from error
        if len(plain) > self._limit:
            raise ServeError(Kind.TOO_LARGE, "grpc", "a message is too large when decompressed", f"allowed: {self._limit}")
        if not unpacker.eof:
            raise invalid("grpc", f"a message is not {self._coding}: it is cut off")
        return plain


def pack(message: bytes, coding: str) -> bytes:
    """A message with its prefix, compressed unless ``coding`` is ""."""
    if not coding:
        return PREFIX.pack(0, len(message)) + message
    packer = zlib.compressobj(1, wbits=WINDOW_BITS[coding])
    packed = packer.compress(message) + packer.flush()
    return PREFIX.pack(1, len(packed)) + packed


def timeout_s(text: str) -> float | None:
    """The seconds in a grpc-timeout header; None for none or one that is malformed."""
    match = TIMEOUT.fullmatch(text)
    return int(match[1]) * UNITS_S[match[2]] if match else None


def literal(name: str, value: str) -> bytes:
    """A header that enters no table."""
    n, v = name.encode(), value.encode("latin-1", "replace")
    return b"\x00" + _length(n) + n + _length(v) + v


def _length(data: bytes) -> bytes:
    """The length of a string literal: an integer with a prefix of 7 bits."""
    size = len(data)
    if size < 127:
        return bytes([size])
    out, size = bytearray([127]), size - 127
    while size > 127:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)


STATUS_200 = b"\x88"
RESPONSE = STATUS_200 + literal("content-type", "application/grpc") + literal("grpc-accept-encoding", "identity, deflate, gzip")
OK = literal("grpc-status", "0")


def status(code: int, text: str) -> bytes:
    """The block of trailers for a status."""
    return literal("grpc-status", str(code)) + literal("grpc-message", quote(text, safe=PRINTABLE))


def only_status(code: int, text: str) -> bytes:
    """The block of an answer that is nothing but a status."""
    return STATUS_200 + literal("content-type", "application/grpc") + status(code, text)
