"""What a peer may do that costs us work and brings it nothing: a bucket of tokens, refilled by time and by answered calls."""

import time
from collections.abc import Callable

from redline.server.grpc.http2 import ENHANCE_YOUR_CALM, ConnectionError2


class Budget:
    """``burst`` tokens, ``per_second`` new ones a second; what is spent beyond ends the connection."""

    __slots__ = ("_burst", "_clock", "_left", "_per_second", "_seen", "_what")

    def __init__(self, what: str, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._burst, self._per_second, self._clock = what, burst, per_second, clock
        self._left, self._seen = float(burst), clock()

    def spend(self, tokens: int = 1) -> None:
        """Raises ConnectionError2 when there are not so many left."""
        self._left -= tokens
        if self._left >= 0:
            return
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen) * self._per_second)
        self._seen = now
        if self._left < 0:
            raise ConnectionError2(ENHANCE_YOUR_CALM, f"too many {self._what}")

    def earn(self) -> None:
        """A call was answered: one token back."""
        if self._left < self._burst:
            self._left += 1
