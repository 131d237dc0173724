"""What callers may ask of a server, and the account of the bytes that their requests occupy."""

from dataclasses import dataclass

from redline.server.errors import unavailable


@dataclass(frozen=True)
class Limits:
    """``body_bytes``: of one request; ``held_bytes``: of all that are arriving or being answered, over all connections."""

    body_bytes: int = 256 << 20
    held_bytes: int = 4 << 30
    connections: int = 4096
    read_timeout_s: float = 30.0
    idle_timeout_s: float = 300.0


class Holding:
    """How many bytes of requests are held. Who takes some gives them back when the request is answered or its caller gone."""

    __slots__ = ("_limit", "num_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self.num_bytes = limit_bytes, 0

    def take(self, num_bytes: int) -> None:
        """Raises ServeError (503, UNAVAILABLE) when that is more than there is room for; nothing is taken then."""
        if self.num_bytes + num_bytes > self._limit:
            seen = f"requests of {self.num_bytes} bytes are being read and answered: no room for {num_bytes} more"
            raise unavailable("server", seen, f"allowed: {self._limit} at a time", "send it again later")
        self.num_bytes += num_bytes

    def give(self, num_bytes: int) -> None:
        self.num_bytes -= num_bytes
