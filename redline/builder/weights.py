"""The weights of an engine: every constant once for each form in which kernels want it, aligned, in order of use.

What has the same bytes is stored once, whichever constants and plans it comes from.
"""

import bisect
import hashlib
from collections.abc import Iterator

import numpy as np

from redline.kernels.problem import KernelCode
from redline.lower.program import Program, View

ALIGNMENT = 64


class Weights:
    """Collects arrays, those of several programs if need be; equal ones are stored once."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.starts: list[int] = []  # byte offset of each array
        self.num_bytes = 0
        self._by_content: dict[tuple[object, ...], int] = {}

    def add(self, array: np.ndarray) -> int:
        """The byte offset of an array of these bytes."""
        array = np.ascontiguousarray(array)
        content = hashlib.blake2b(array.reshape(-1).view(np.uint8).data, digest_size=32).digest()
        key = (array.dtype.str, array.dtype.name, array.nbytes, content)
        if key not in self._by_content:
            self._by_content[key] = self.num_bytes
            self.arrays.append(array)
            self.starts.append(self.num_bytes)
            self.num_bytes += -(-max(array.nbytes, 1) // ALIGNMENT) * ALIGNMENT
        return self._by_content[key]

    def index_at(self, offset: int) -> int:
        """The number of the array that byte ``offset`` lies in."""
        return bisect.bisect_right(self.starts, offset) - 1

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The blob, array by array, so that it is never in memory as one."""
        for array in self.arrays:
            yield array.reshape(-1).view(np.uint8).data
            yield bytes(-array.nbytes % ALIGNMENT if array.nbytes else ALIGNMENT)


class Placed:
    """The constants of one program among an engine's weights."""

    def __init__(self, program: Program, weights: Weights) -> None:
        self.program, self.weights = program, weights
        self._offsets: dict[tuple[object, ...], int] = {}

    def place(self, view: View, code: KernelCode, position: int) -> int:
        """The byte offset at which a kernel finds its read operand ``position``, which is a constant."""
        packing = code.packings.get(position)
        if packing is None:
            key: tuple[object, ...] = (view.buffer.index,)
            if key not in self._offsets:
                self._offsets[key] = self.weights.add(self.program.constants[view.buffer.index])
            return self._offsets[key] + view.offset * view.dtype.size
        key = (view.buffer.index, view.shape, view.strides, view.offset, packing.name)
        if key not in self._offsets:
            self._offsets[key] = self.weights.add(packing.apply(elements(view, self.program)))
        return self._offsets[key]


def elements(view: View, program: Program) -> np.ndarray:
    """The constant elements that a view addresses, shaped and strided as it says."""
    flat = program.constants[view.buffer.index].reshape(-1)
    strides = [stride * flat.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False)
