"""The memory plan: when steps may run side by side, and where in the arena each temporary lies.

Steps between two barriers form a phase: none of them reads what another of the phase writes, so their chunks may run in
any order. Life times are counted in phases, so memory is never handed on inside one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redline.base.shapes import size
from redline.lower.program import Buffer, Step, View

ALIGNMENT = 64
MAX_STEPS = 256  # of a phase; the plan checker compares each with each, and refuses more than 512


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
    """The phase of each step.

    A new one begins at the step that reads or writes what the current one writes, or writes what the current one reads, or
    where the current one is long; and behind a step that finds an extent, which any later one may need.
    """
    phases: list[int] = []
    phase = 0
    finds = False
    reads: list[View] = []
    writes: list[View] = []
    for step in steps:
        is_long = len(phases) >= MAX_STEPS and phases[-MAX_STEPS] == phase
        if finds or is_long or _meet(step.reads, writes) or _meet(step.writes, writes) or _meet(step.writes, reads):
            phase += 1
            reads, writes = [], []
        reads += step.reads
        writes += step.writes
        finds = getattr(step.problem, "slot", None) is not None
        phases.append(phase)
    return tuple(phases)


def _meet(ours: Sequence[View], theirs: Sequence[View]) -> bool:
    """Whether an element of ``ours`` may lie where one of ``theirs`` does."""
    return any(a.buffer == b.buffer and not _are_apart(a, b) for a in ours for b in theirs)


def _are_apart(a: View, b: View) -> bool:
    """Whether two views of one buffer lie one after the other, or in different columns of equally long rows."""
    (a_first, a_end), (b_first, b_end) = _span(a), _span(b)
    if a_end <= b_first or b_end <= a_first or size(a.shape) == 0 or size(b.shape) == 0:
        return True
    (a_width, a_rows), (b_width, b_rows) = _columns(a), _columns(b)
    row = math.gcd(a_rows, b_rows)
    if row == 0:
        return False
    distance = (b_first - a_first) % row
    return distance >= a_width and row - distance >= b_width


def _span(view: View) -> tuple[int, int]:
    """The first element and the end of what a view reaches over."""
    reach = [stride * (extent - 1) for extent, stride in zip(view.shape, view.strides, strict=True)]
    return view.offset + sum(min(r, 0) for r in reach), view.offset + sum(max(r, 0) for r in reach) + 1


def _columns(view: View) -> tuple[int, int]:
    """The length of the runs that a view consists of, and the greatest common divisor of the distances between them."""
    width, rows = 1, 0
    for stride, extent in sorted((abs(s), e) for e, s in zip(view.shape, view.strides, strict=True) if e > 1):
        if stride == width and rows == 0:
            width *= extent
        else:
            rows = math.gcd(rows, stride)
    return width, rows


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
