"""Steps that one kernel may do in place of several, so that what lies between them never leaves the caches of a thread.

In: a program of fixed shapes. Out: the joints, and the program in which some of them are made. A convolution is joined with
the steps that read its result a band of rows at a time; one of one tap also with a depthwise convolution behind it, a part
of the channels at a time. Which is decided by time, but only where the threads' own caches do not hold what lies between:
elsewhere a thread finds it there, and a kernel timed alone does not show that joined steps share the work in another way than
the steps before and after them. Loops that only move or scale what a convolution made are joined where less lies between.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from redline.kernels import banded, conv, depthwise, expanded
from redline.lower.editing import still_used
from redline.lower.program import Program, Step, View

LOOPS_SHARE = 8  # of the bytes from which on others are joined, where all readers are loops


@dataclass(frozen=True)
class Joint:
    """``joined`` reads what ``parts`` read, without what the first writes for the others."""

    parts: tuple[Step, ...]
    joined: Step

    @property
    def last(self) -> Step:
        """Where the joined step stands."""
        return self.parts[-1]


def joints(program: Program, cache_bytes: int) -> list[Joint]:
    """Those of ``program`` with more than ``cache_bytes`` between their parts, in the order of its steps."""
    return [joint for maker in program.steps for joint in _joints(program, maker, cache_bytes)]


def _joints(program: Program, maker: Step, cache_bytes: int) -> Iterator[Joint]:
    if not isinstance(maker.problem, conv.Problem):
        return
    made = maker.writes[0]
    readers = program.readers(made.buffer)
    steps = [step for step, _ in readers]
    if made.buffer.kind != "temp" or program.writers(made.buffer) != [maker] or not _stand_together(program, steps):
        return
    least = cache_bytes // LOOPS_SHARE if all(step.family == "nest" for step in steps) else cache_bytes
    if made.operand.num_bytes <= least:
        return
    problem, last = _expanded(maker, readers), steps[-1]
    if problem is not None:
        reads, nodes = (*maker.reads, *last.reads[1:]), (*maker.nodes, *last.nodes)
        yield Joint((maker, last), Step("expanded", problem, reads, last.writes, nodes, last.reason))
    inside = [banded.Reader(step.family, step.problem, i, step.reads[i].offset - made.offset) for step, i in readers]
    if banded.applies(maker.problem, inside):
        others = (view for step, i in readers for view in _without(step.reads, i))
        writes = (view for step in steps for view in step.writes)
        names = (name for step in (maker, *steps) for name in step.nodes)
        whole = banded.Problem(maker.problem, tuple(inside))
        joined = Step("banded", whole, (*maker.reads, *others), tuple(writes), tuple(names), last.reason)
        yield Joint((maker, *steps), joined)


def _expanded(maker: Step, readers: Sequence[tuple[Step, int]]) -> expanded.Problem | None:
    """A convolution of one tap and the depthwise one that alone reads its result, if the two are that."""
    (step, place), first = readers[0], maker.problem
    if len(readers) > 1 or place or not isinstance(step.problem, depthwise.Problem) or not isinstance(first, conv.Problem):
        return None
    fits = maker.writes[0].is_place_of(step.reads[0]) and expanded.applies(first, step.problem)
    return expanded.Problem(first, step.problem) if fits else None


def _stand_together(program: Program, readers: Sequence[Step]) -> bool:
    """Whether all of ``readers`` may as well run where the last of them does."""
    if not readers or len(set(readers)) < len(readers):
        return False
    written = {view.buffer for step in readers for view in step.writes}
    first, last = (program.steps.index(step) for step in (readers[0], readers[-1]))
    return not any(view.buffer in written for step in program.steps[first : last + 1] for view in step.reads)


def _without(views: Sequence[View], place: int) -> Iterator[View]:
    return (view for i, view in enumerate(views) if i != place)


def join(program: Program, chosen: Collection[Joint]) -> Program:
    """``program`` with these joints, no two of which have a part in common, as a step each."""
    gone = {part for joint in chosen for part in joint.parts}
    joined = {joint.last: joint.joined for joint in chosen}
    steps = tuple(joined.get(step, step) for step in program.steps if step in joined or step not in gone)
    buffers, constants = still_used(program.buffers, program.constants, steps)
    return replace(program, buffers=buffers, constants=constants, steps=steps)
