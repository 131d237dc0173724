"""An instance in a process of its own: native code that crashes takes the process with it, not the server.

Rows travel through one shared memory file per worker; a line of JSON on a socket says what to run and what came of it. A
worker that dies fails the batch that it held (503) and is started again for the next one.
"""

import contextlib
import json
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from redline.base import env
from redline.server.errors import Kind, ServeError, unavailable
from redline.server.program import Ran
from redline.server.types import Arrays

START_LIMIT_S = 120.0
ALIGN = 64


def aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGN) * ALIGN


class WorkerInstance:
    """Runs batches in a child process. ``pid`` is that of the living child."""

    def __init__(self, where: str, files: Mapping[int, Path], max_batch_size: int, threads: int) -> None:
        self._where, self._threads, self._max_batch_size = where, threads, max_batch_size
        self._files = {str(size): str(path) for size, path in files.items()}
        self._closed = False
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._memory = os.memfd_create("redline-worker")
        self._map: mmap.mmap | None = None
        command = [sys.executable, "-m", "redline.server.backends.worker_main", str(theirs.fileno()), str(self._memory)]
        self._child = subprocess.Popen(
            command, pass_fds=(theirs.fileno(), self._memory), env=env.child_environment(), stdin=subprocess.DEVNULL
        )  # fmt: skip
        theirs.close()
        self._socket, self._stream = ours, ours.makefile("rwb")
        ours.settimeout(START_LIMIT_S)
        self._ask({"files": self._files, "max_batch_size": self._max_batch_size, "threads": self._threads})
        ours.settimeout(None)
        self.pid = self._child.pid

    def _ask(self, message: Mapping[str, Any]) -> Any:
        """The child's answer; raises ServeError (503) when it is dead, and its own error when it sends one."""
        try:
            self._stream.write(json.dumps(message).encode() + b"\n")
            self._stream.flush()
            line = self._stream.readline()
        except (OSError, ValueError):
            line = b""
        if not line:
            raise unavailable(self._where, "its worker process died", "", "send the request again")
        answer = json.loads(line)
        if "error" in answer:
            raise ServeError(Kind.INTERNAL, self._where, answer["error"])
        return answer

    def run(self, batch: Sequence[Arrays]) -> Ran:
        with self._lock:
            if self._child.poll() is not None:
                self._restart()
            try:
                return self._run(batch)
            except ServeError as error:
                if error.kind is Kind.UNAVAILABLE:
                    self._restart()
                raise

    def _restart(self) -> None:
        if self._closed:
            raise unavailable(self._where, "it is being unloaded")
        self._stop()
        self._start()

    def _run(self, batch: Sequence[Arrays]) -> Ran:
        layout, total = place_arrays(batch)
        shared = self._shared(total)
        for arrays, places in zip(batch, layout, strict=True):
            for array, place in zip(arrays.values(), places, strict=True):
                view(shared, place)[...] = array
        answer = self._ask({"inputs": layout, "end": total})
        shared = self._shared(answer["end"])
        return Ran([{p["name"]: view(shared, p).copy() for p in places} for places in answer["outputs"]])

    def _shared(self, num_bytes: int) -> mmap.mmap:
        """The mapping, grown to at least so many bytes."""
        size = os.fstat(self._memory).st_size
        if size < num_bytes:
            os.ftruncate(self._memory, max(num_bytes, 2 * size))
        if self._map is None or len(self._map) < max(num_bytes, 1):
            self._map = mmap.mmap(self._memory, os.fstat(self._memory).st_size or ALIGN)
        return self._map

    def _stop(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()  # which sends what a dead child did not take
        self._socket.close()
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
        self._child.wait()
        self._map = None
        os.close(self._memory)

    def close(self) -> None:
        self._closed = True
        with self._lock:
            self._stop()


def place_arrays(requests: Sequence[Arrays], at: int = 0) -> tuple[list[Any], int]:
    """Where the arrays of several requests go in the shared memory, and the end of the last."""
    layout = []
    for request in requests:
        places = []
        for name, array in request.items():
            places.append({"name": name, "dtype": array.dtype.name, "shape": array.shape, "at": at})
            at += aligned(array.nbytes)
        layout.append(places)
    return layout, at


def view(shared: mmap.mmap, place: Mapping[str, Any]) -> np.ndarray:
    """The array at a place."""
    count = math.prod(place["shape"])
    return np.frombuffer(shared, np.dtype(place["dtype"]), count, place["at"]).reshape(place["shape"])
