"""A timer that keeps microseconds: event loops count in milliseconds, and a batch may be told to wait for less. Linux only."""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable

CLOCK_MONOTONIC, NONBLOCK, CLOEXEC = 1, 0o4000, 0o2000000
SHORTEST_S = 1e-6


class _Spec(ctypes.Structure):
    """struct itimerspec: the interval (none here), then the time to the first expiry."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns"))


class Timer:
    """Calls ``callback`` on the event loop once for each time that it is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(CLOCK_MONOTONIC, NONBLOCK | CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self.armed = False
        loop.add_reader(self._descriptor, self._fire)

    def set(self, seconds: float) -> None:
        """Fires after ``seconds``, in place of an earlier setting."""
        self.armed = True
        self._settime(max(SHORTEST_S, seconds))

    def cancel(self) -> None:
        if self.armed:
            self.armed = False
            self._settime(0.0)

    def _settime(self, seconds: float) -> None:
        whole = int(seconds)
        spec = _Spec(0, 0, whole, round((seconds - whole) * 1e9) % 1_000_000_000)
        self._libc.timerfd_settime(self._descriptor, 0, ctypes.byref(spec), None)

    def _fire(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)
        if self.armed:
            self.armed = False
            self._callback()

    def close(self) -> None:
        """Gives the descriptor back; a second call does nothing."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
