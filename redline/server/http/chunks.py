"""Chunked request bodies. Strict: a peer that reads chunks in another way must not see another request than we do."""

from redline.server.errors import Kind, ServeError, invalid

MAX_LINE_BYTES = 256
MAX_TRAILER_BYTES = 8 << 10
HEX = frozenset(b"0123456789abcdefABCDEF")


class Chunks:
    """Fed with bytes until ``complete``; ``rest`` is then what followed the body. ``num_bytes`` are there."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._pending = limit_bytes, bytearray()
        self._parts: list[bytes] = []
        self._size, self._left = 0, -1  # left: bytes of the chunk still to come, -1 between chunks, -2 in the trailer
        self._trailer = self.num_bytes = 0
        self.complete = False

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)

    @property
    def rest(self) -> bytes:
        return bytes(self._pending)

    def feed(self, data: bytes) -> None:
        """Raises ServeError for a malformed body and for one over the limit."""
        self._pending += data
        while not self.complete and self._step():
            pass

    def _step(self) -> bool:
        """Takes one piece off what is pending; False when more bytes are needed."""
        if self._left > 0:
            return self._take_data()
        end = self._pending.find(b"\r\n")
        if end < 0:
            if len(self._pending) > MAX_LINE_BYTES:
                raise invalid("http", "a chunk's size line is too long", f"allowed: {MAX_LINE_BYTES} bytes")
            return False
        line = bytes(self._pending[:end])
        del self._pending[: end + 2]
        if self._left == -2:
            self._take_trailer(line)
        elif self._left == 0:
            if line:
                raise invalid("http", "a chunk is longer than its size")
            self._left = -1
        else:
            self._start_chunk(line)
        return True

    def _take_data(self) -> bool:
        taken = bytes(self._pending[: self._left])
        del self._pending[: len(taken)]
        self._left -= len(taken)
        self.num_bytes += len(taken)
        self._parts.append(taken)
        return self._left == 0 and bool(taken)

    def _start_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].rstrip(b" \t")
        if not 0 < len(digits) <= 15 or not HEX.issuperset(digits):
            raise invalid("http", f"a chunk's size is {digits[:40]!r}", "expected hexadecimal digits")
        size = int(digits, 16)
        self._size += size
        if self._size > self._limit:
            raise ServeError(Kind.TOO_LARGE, "http", "the body is too large", f"allowed: {self._limit} bytes")
        self._left = size or -2

    def _take_trailer(self, line: bytes) -> None:
        self._trailer += len(line) + 2
        if self._trailer > MAX_TRAILER_BYTES:
            raise invalid("http", "the trailer is too long", f"allowed: {MAX_TRAILER_BYTES} bytes")
        self.complete = not line
