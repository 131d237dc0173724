"""Steps that one kernel may do in place of two: a convolution of one tap, and the depthwise one that alone reads its result.

In: a program of fixed shapes. Out: the pairs, and the program in which some of them are joined. Which is decided by time, but
only where the threads' own caches do not hold what lies between the two: elsewhere a thread finds it there, and a kernel timed
alone does not show that joined steps share the work in another way than the steps before and after them.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from redline.kernels import conv, depthwise, expanded
from redline.lower.editing import still_used
from redline.lower.program import Program, Step


@dataclass(frozen=True)
class Pair:
    """``joined`` reads what ``first`` and ``second`` read, without what the one writes for the other."""

    first: Step
    second: Step
    joined: Step


def pairs(program: Program, cache_bytes: int) -> list[Pair]:
    """Those of ``program`` with more than ``cache_bytes`` between the two, in the order of its steps."""
    filters = (step for step in program.steps if isinstance(step.problem, depthwise.Problem))
    large = (step for step in filters if step.reads[0].operand.num_bytes > cache_bytes)
    return [pair for step in large if (pair := _pair(program, step))]


def _pair(program: Program, second: Step) -> Pair | None:
    between = second.reads[0].buffer
    makers = program.writers(between)
    if between.kind != "temp" or len(makers) != 1 or program.readers(between) != [(second, 0)]:
        return None
    (first,) = makers
    assert isinstance(second.problem, depthwise.Problem), "no other is asked for"
    if not isinstance(first.problem, conv.Problem) or not first.writes[0].is_place_of(second.reads[0]):
        return None
    if not expanded.applies(first.problem, second.problem):
        return None
    problem, reads = expanded.Problem(first.problem, second.problem), (*first.reads, *second.reads[1:])
    joined = Step("expanded", problem, reads, second.writes, (*first.nodes, *second.nodes), second.reason)
    return Pair(first, second, joined)


def join(program: Program, chosen: Collection[Pair]) -> Program:
    """``program`` with these pairs as a step each, where the second was."""
    gone, joined = {pair.first for pair in chosen}, {pair.second: pair.joined for pair in chosen}
    steps = tuple(joined.get(step, step) for step in program.steps if step not in gone)
    buffers, constants = still_used(program.buffers, program.constants, steps)
    return replace(program, buffers=buffers, constants=constants, steps=steps)
