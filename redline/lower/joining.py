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
from redline.lower.program import Program, Step

LOOPS_SHARE = 8  # of the bytes from which on others are joined, where all readers are loops


@dataclass(frozen=True)
class Joint:
    """``joined`` does what ``parts`` do, keeps what these write for each other, and stands where ``place`` did."""

    parts: tuple[Step, ...]
    joined: Step
    place: Step


def joints(program: Program, cache_bytes: int) -> list[Joint]:
    """Those of ``program`` with more than ``cache_bytes`` between their parts, in the order of its steps."""
    return [joint for maker in program.steps for joint in _joints(program, maker, cache_bytes)]


def _joints(program: Program, maker: Step, cache_bytes: int) -> Iterator[Joint]:
    readers = _readers(program, maker)
    if not isinstance(maker.problem, conv.Problem) or not readers:
        return
    least = cache_bytes // LOOPS_SHARE if all(step.family == "nest" for step, _ in readers) else cache_bytes
    if maker.writes[0].operand.num_bytes <= least:
        return
    problem = _expanded(maker, readers)
    if problem is not None:
        last = readers[0][0]
        names, reads = (*maker.nodes, *last.nodes), (*maker.reads, *last.reads[1:])
        yield Joint((maker, last), Step("expanded", problem, reads, last.writes, names, last.reason), last)
    followed = [_Follower(step, place, banded.MAKER) for step, place in readers]
    yield from _banded(program, maker, followed)
    for number, (step, _) in enumerate(readers):  # and what reads the result of one of them
        more = [_Follower(each, place, number) for each, place in _readers(program, step)]
        if more and step.writes[0].operand.num_bytes > cache_bytes:
            yield from _banded(program, maker, [*followed, *more])


@dataclass(frozen=True)
class _Follower:
    """``step`` reads as operand ``place`` what the follower number ``of`` makes, or the maker."""

    step: Step
    place: int
    of: int


def _readers(program: Program, maker: Step) -> list[tuple[Step, int]]:
    """The steps that read the result of ``maker``, each once, if there is nothing else that it must be kept for."""
    made = maker.writes[0]
    readers = program.readers(made.buffer)
    alone = made.buffer.kind == "temp" and program.writers(made.buffer) == [maker]
    return readers if alone and len(maker.writes) == 1 and len({step for step, _ in readers}) == len(readers) else []


def _expanded(maker: Step, readers: Sequence[tuple[Step, int]]) -> expanded.Problem | None:
    """A convolution of one tap and the depthwise one that alone reads its result, if the two are that."""
    (step, place), first = readers[0], maker.problem
    if len(readers) > 1 or place or not isinstance(step.problem, depthwise.Problem) or not isinstance(first, conv.Problem):
        return None
    fits = maker.writes[0].is_place_of(step.reads[0]) and expanded.applies(first, step.problem)
    return expanded.Problem(first, step.problem) if fits else None


def _banded(program: Program, maker: Step, followers: Sequence[_Follower]) -> Iterator[Joint]:
    first, steps = maker.problem, [follower.step for follower in followers]
    assert isinstance(first, conv.Problem), "no other is asked for"
    made = [maker.writes[0] if f.of == banded.MAKER else steps[f.of].writes[0] for f in followers]
    inside = tuple(
        banded.Reader(f.step.family, f.step.problem, f.place, f.step.reads[f.place].offset - view.offset, f.of)
        for f, view in zip(followers, made, strict=True)
    )
    if len(set(steps)) < len(steps) or not banded.applies(first, inside):
        return
    held = {f.of for f in followers}
    others = (view for f in followers for i, view in enumerate(f.step.reads) if i != f.place)
    writes = tuple(view for number, step in enumerate(steps) if number not in held for view in step.writes)
    names = tuple(name for step in (maker, *steps) for name in step.nodes)
    joined = Step("banded", banded.Problem(first, inside), (*maker.reads, *others), writes, names, steps[-1].reason)
    place = _place(program, steps, joined)
    if place is not None:
        yield Joint((maker, *steps), joined, place)


def _place(program: Program, parts: Sequence[Step], joined: Step) -> Step | None:
    """One of ``parts`` before which all is made that ``joined`` reads, and after which all stands that reads its results."""
    read, written = {view.buffer for view in joined.reads}, {view.buffer for view in joined.writes}
    if read & written:
        return None
    makers = [i for i, step in enumerate(program.steps) if any(view.buffer in read for view in step.writes)]
    readers = [i for i, step in enumerate(program.steps) if any(view.buffer in written for view in step.reads)]
    begin, end = max(makers, default=-1), min(readers, default=len(program.steps))
    return next((part for part in parts if begin < program.steps.index(part) < end), None)


def join(program: Program, chosen: Collection[Joint]) -> Program:
    """``program`` with these joints, no two of which have a part in common, as a step each."""
    gone = {part for joint in chosen for part in joint.parts}
    joined = {joint.place: joint.joined for joint in chosen}
    steps = tuple(joined.get(step, step) for step in program.steps if step in joined or step not in gone)
    buffers, constants = still_used(program.buffers, program.constants, steps)
    return replace(program, buffers=buffers, constants=constants, steps=steps)
