"""What lowering produces: buffers, views of them, and the steps that fill them, in the order of execution."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from redline.base.dtypes import DType
from redline.base.shapes import StaticShape, contiguous_strides
from redline.kernels.problem import Operand, Problem

BufferKind = Literal["input", "output", "constant", "temp"]


@dataclass(frozen=True)
class Buffer:
    """A piece of memory of ``num_elements`` elements. ``name`` is the graph's name for inputs and outputs."""

    index: int
    kind: BufferKind
    dtype: DType
    num_elements: int
    name: str = ""

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.size


@dataclass(frozen=True)
class View:
    """A strided window into a buffer; ``strides`` and ``offset`` in elements."""

    buffer: Buffer
    shape: StaticShape
    strides: StaticShape
    offset: int = 0

    @staticmethod
    def whole(buffer: Buffer, shape: StaticShape) -> "View":
        return View(buffer, shape, contiguous_strides(shape))

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype

    @property
    def operand(self) -> Operand:
        return Operand(self.dtype, self.shape, self.strides, self.buffer.kind == "constant")

    @property
    def is_contiguous(self) -> bool:
        return self.operand.is_contiguous

    def elements(self, constants: Mapping[int, np.ndarray]) -> np.ndarray:
        """What a view of a constant holds; not to be written to."""
        flat = constants[self.buffer.index].reshape(-1)
        strides = [stride * flat.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)

    def is_place_of(self, other: "View") -> bool:
        """Whether both put every element at the same address; the stride of an axis of one element says nothing."""
        strides = zip(self.shape, self.strides, other.strides, strict=False)
        return (
            (self.buffer, self.shape, self.offset) == (other.buffer, other.shape, other.offset)
            and all(a == b for extent, a, b in strides if extent != 1)
        )  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One kernel: a problem and where its operands lie. ``reason`` says why the group of nodes ends here."""

    family: str
    problem: Problem
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    nodes: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Program:
    """Everything that is needed to choose kernels and to lay out memory. ``constants`` by buffer index."""

    name: str
    buffers: tuple[Buffer, ...]
    constants: Mapping[int, np.ndarray]
    steps: tuple[Step, ...]
    inputs: tuple[tuple[str, Buffer, StaticShape], ...]
    outputs: tuple[tuple[str, Buffer, StaticShape], ...]

    def readers(self, buffer: Buffer) -> list[tuple[Step, int]]:
        """The steps that read ``buffer``, and as which operand."""
        return [(step, place) for step in self.steps for place, view in enumerate(step.reads) if view.buffer == buffer]

    def writers(self, buffer: Buffer) -> list[Step]:
        """The steps that write to ``buffer``."""
        return [step for step in self.steps if any(view.buffer == buffer for view in step.writes)]
