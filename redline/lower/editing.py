"""A program that is being rewritten: its buffers and constants, to which a pass adds its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.lower.program import Buffer, BufferKind, Program, Step, View


def still_used(
    buffers: Sequence[Buffer], constants: Mapping[int, np.ndarray], steps: Sequence[Step]
) -> tuple[tuple[Buffer, ...], dict[int, np.ndarray]]:
    """The buffers that ``steps`` read or write, or that are a caller's; and the constants of those."""
    used = {view.buffer for step in steps for view in step.reads + step.writes}
    kept = tuple(b for b in buffers if b.kind in ("input", "output") or b in used)
    return kept, {b.index: constants[b.index] for b in kept if b.kind == "constant"}


class Editing:
    """What a pass over ``program`` has added to it so far."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.buffers, self.constants = list(program.buffers), dict(program.constants)

    def buffer(self, kind: BufferKind, dtype: DType, count: int) -> Buffer:
        """A new one, of ``count`` elements."""
        self.buffers.append(Buffer(max(b.index for b in self.buffers) + 1, kind, dtype, count))
        return self.buffers[-1]

    def constant(self, array: np.ndarray) -> View:
        """A view of a new constant."""
        buffer = self.buffer("constant", dtypes.from_numpy(array.dtype), array.size)
        self.constants[buffer.index] = np.ascontiguousarray(array)
        return View.whole(buffer, array.shape)

    def finished(self, steps: Sequence[Step]) -> Program:
        """The program of ``steps``, without what they do not use."""
        buffers, constants = still_used(self.buffers, self.constants, steps)
        return replace(self.program, buffers=buffers, constants=constants, steps=tuple(steps))
