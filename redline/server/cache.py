"""The response cache: outputs by the bytes of the inputs, the least recently used dropped when they exceed a limit."""

import hashlib
from collections import OrderedDict

import numpy as np

from redline.server import tensors
from redline.server.types import Arrays, Tensor


class ResponseCache:
    """Used on the event loop only. ``limit`` 0: keeps nothing."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.num_bytes = limit_bytes, 0
        self._entries: OrderedDict[bytes, tuple[dict[str, np.ndarray], int]] = OrderedDict()

    def get(self, key: bytes) -> dict[str, np.ndarray] | None:
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: bytes, outputs: Arrays) -> None:
        """Keeps copies, so that the arrays of a whole batch do not live as long as one answer of it."""
        kept = {name: array.copy() for name, array in outputs.items()}
        size = len(key) + sum(_size(array) for array in kept.values())
        if size > self.limit_bytes:
            return
        for array in kept.values():
            array.flags.writeable = False
        old = self._entries.pop(key, None)
        self.num_bytes += size - (old[1] if old else 0)
        self._entries[key] = kept, size
        while self.num_bytes > self.limit_bytes:
            self.num_bytes -= self._entries.popitem(last=False)[1][1]

    def __len__(self) -> int:
        return len(self._entries)


def _size(array: np.ndarray) -> int:
    return array.nbytes if array.dtype != object else sum(len(item) + 64 for item in map(tensors.as_bytes, array.flat))


def key_of(served: int, inputs: tuple[Tensor, ...]) -> bytes:
    """The key of a request to one loaded version (numbered, never again the same number)."""
    digest = hashlib.blake2b(str(served).encode(), digest_size=32)
    for tensor in sorted(inputs, key=lambda t: t.name):
        digest.update(f"\0{tensor.name}\0{tensor.datatype}\0{tensor.shape}\0".encode())
        digest.update(tensors.to_bytes(tensor.array, tensor.datatype))
    return digest.digest()
