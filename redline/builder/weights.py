"""The weights of an engine: every constant once for each form in which kernels want it, aligned, in order of use."""

import bisect
from collections.abc import Iterator

import numpy as np

from redline.kernels.problem import KernelCode
from redline.lower.program import Program, View

ALIGNMENT = 64


class Weights:
    """Collects arrays; equal (constant, form) pairs are stored once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.offsets: dict[tuple[object, ...], int] = {}
        self.arrays: list[np.ndarray] = []
        self.starts: list[int] = []  # byte offset of each array
        self.num_bytes = 0

    def place(self, view: View, code: KernelCode, position: int) -> int:
        """The byte offset at which a kernel finds its read operand ``position``, which is a constant."""
        packing = code.packings.get(position)
        if packing is None:
            return self._add((view.buffer.index,), self.program.constants[view.buffer.index]) + view.offset * view.dtype.size
        key = (view.buffer.index, view.shape, view.strides, view.offset, packing.name)
        return self.offsets[key] if key in self.offsets else self._add(key, packing.apply(elements(view, self.program)))

    def _add(self, key: tuple[object, ...], array: np.ndarray) -> int:
        if key not in self.offsets:
            self.offsets[key] = self.num_bytes
            self.arrays.append(np.ascontiguousarray(array))
            self.starts.append(self.num_bytes)
            self.num_bytes += -(-max(array.nbytes, 1) // ALIGNMENT) * ALIGNMENT
        return self.offsets[key]

    def index_at(self, offset: int) -> int:
        """The number of the array that byte ``offset`` lies in."""
        return bisect.bisect_right(self.starts, offset) - 1

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The blob, array by array, so that it is never in memory as one."""
        for array in self.arrays:
            yield array.reshape(-1).view(np.uint8).data
            yield bytes(-array.nbytes % ALIGNMENT if array.nbytes else ALIGNMENT)


def elements(view: View, program: Program) -> np.ndarray:
    """The constant elements that a view addresses, shaped and strided as it says."""
    flat = program.constants[view.buffer.index].reshape(-1)
    strides = [stride * flat.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False)
