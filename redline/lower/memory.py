"""The memory plan: when steps may run side by side, and where in the arena each temporary lies.

Steps between two barriers form a phase: none of them reads what another of the phase writes, so their chunks may run in
any order. Life times are counted in phases, so memory is never handed on inside one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redline.lower.program import Buffer, Step

ALIGNMENT = 64


@dataclass(frozen=True)
class MemoryPlan:
    """``phases[i]`` is the phase of step i (rising); ``offsets`` the arena offset of each temporary, in bytes."""

    phases: tuple[int, ...]
    offsets: Mapping[int, int]
    arena_bytes: int


@dataclass(frozen=True)
class _Block:
    buffer: Buffer
    first: int
    last: int

    def overlaps(self, other: "_Block") -> bool:
        return self.first <= other.last and other.first <= self.last


def assign_phases(steps: Sequence[Step]) -> tuple[int, ...]:
    """The phase of each step: a new one begins at the step that reads a buffer written in the current one."""
    phases, phase = [], 0
    written: set[int] = set()
    for step in steps:
        if any(view.buffer.index in written for view in step.reads):
            phase += 1
            written = set()
        written |= {view.buffer.index for view in step.writes}
        phases.append(phase)
    return tuple(phases)


def plan(steps: Sequence[Step]) -> MemoryPlan:
    """Places the largest temporaries first, each at the lowest offset free during its life."""
    phases = assign_phases(steps)
    placed: list[tuple[int, _Block]] = []
    for block in sorted(_blocks(steps, phases), key=lambda b: (-b.buffer.num_bytes, b.first, b.buffer.index)):
        offset = 0
        for start, other in sorted(((s, o) for s, o in placed if block.overlaps(o)), key=lambda p: p[0]):
            if offset + _aligned(block.buffer.num_bytes) <= start:
                break
            offset = max(offset, start + _aligned(other.buffer.num_bytes))
        placed.append((offset, block))
    total = max((offset + _aligned(block.buffer.num_bytes) for offset, block in placed), default=0)
    return MemoryPlan(phases, {block.buffer.index: offset for offset, block in placed}, total)


def _blocks(steps: Sequence[Step], phases: Sequence[int]) -> list[_Block]:
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for step, phase in zip(steps, phases, strict=True):
        for view in step.reads + step.writes:
            if view.buffer.kind == "temp":
                first.setdefault(view.buffer, phase)
                last[view.buffer] = phase
    return [_Block(buffer, first[buffer], last[buffer]) for buffer in first]


def _aligned(num_bytes: int) -> int:
    return -(-max(num_bytes, 1) // ALIGNMENT) * ALIGNMENT
