"""The child process of worker.py: loads engines, then answers one line for each line until its socket closes."""

import json
import mmap
import os
import socket
import sys
from typing import Any

import ml_dtypes  # noqa: F401  (names bfloat16 for numpy)

from redline.base.errors import RedlineError
from redline.runtime import load
from redline.server.backends.instances import make_instance
from redline.server.backends.worker import place_arrays, view
from redline.server.program import Instance


class Child:
    def __init__(self, descriptor: int, memory: int) -> None:
        self._stream = socket.socket(fileno=descriptor).makefile("rwb")
        self._memory = memory
        self._map: mmap.mmap | None = None
        self._instance: Instance | None = None

    def serve(self) -> None:
        while line := self._stream.readline():
            try:
                answer = self._answer(json.loads(line))
            except (RedlineError, MemoryError, OSError) as error:
                answer = {"error": str(error)}
            self._stream.write(json.dumps(answer).encode() + b"\n")
            self._stream.flush()

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if "files" in message:
            engines = {int(size): load(path, message["threads"]) for size, path in message["files"].items()}
            self._instance = make_instance(engines, message["max_batch_size"], message["threads"])
            return {}
        assert self._instance is not None
        shared = self._shared(message["end"])
        batch = [{p["name"]: view(shared, p) for p in places} for places in message["inputs"]]
        outputs = self._instance.run(batch).outputs
        layout, end = place_arrays(outputs, message["end"])
        shared = self._shared(end)
        for request, places in zip(outputs, layout, strict=True):
            for array, place in zip(request.values(), places, strict=True):
                view(shared, place)[...] = array
        return {"outputs": layout, "end": end}

    def _shared(self, num_bytes: int) -> mmap.mmap:
        if os.fstat(self._memory).st_size < num_bytes:
            os.ftruncate(self._memory, num_bytes)
        if self._map is None or len(self._map) < max(num_bytes, 1):
            self._map = mmap.mmap(self._memory, os.fstat(self._memory).st_size or 64)
        return self._map


if __name__ == "__main__":
    Child(int(sys.argv[1]), int(sys.argv[2])).serve()
