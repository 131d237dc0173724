"""The step tables of an engine, one a plan, as C text: what executor.c walks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from redline.base.errors import BuildError
from redline.base.extents import high, is_open


class Space(IntEnum):
    """Where an operand lives; the values are those of executor.h."""

    ARENA = 0
    WEIGHTS = 1
    INPUT = 2
    OUTPUT = 3


@dataclass(frozen=True)
class Ref:
    """An address: ``offset`` bytes into the arena, the weights, or input or output number ``index``.

    ``open``: bytes more, as the dimensions say (an extent, or 0).
    """

    space: Space
    offset: int = 0
    index: int = 0
    open: int = 0


@dataclass(frozen=True)
class Step:
    """One kernel call. ``refs`` in the order of its ``args``: what it reads, then what it writes. ``num_chunks`` may be open.

    ``barrier``: every earlier step must be finished before a chunk of this one starts. Without it the step may
    overlap the earlier ones, back to the last step with a barrier.
    """

    symbol: str
    num_chunks: int
    refs: tuple[Ref, ...]
    barrier: bool = True


@dataclass(frozen=True)
class Plan:
    """The steps of an engine for its shapes, or for some of them.

    ``arena_bytes`` holds the temporary tensors, ``scratch_bytes`` is for each thread.

    ``max_threads``: how many threads are worth waking (a wake-up takes some microseconds); 0: all that find a chunk.
    ``num_dims``: the open dimensions that a call brings.
    """

    steps: tuple[Step, ...]
    arena_bytes: int
    scratch_bytes: int = 0
    max_threads: int = 0
    num_dims: int = 0


def render(plans: Sequence[Plan]) -> str:
    """C text that defines ``rl_plans`` of executor.h. Raises BuildError for a plan that is too large."""
    if any(sum(high(step.num_chunks) for step in plan.steps) >= 1 << 31 for plan in plans):
        raise BuildError("plan", "the plan has 2^31 chunks or more", "", "use schedules with larger chunks")
    lines = [
        f"void {symbol}(void *const *args, void *scratch, int64_t chunk);"
        for symbol in dict.fromkeys(step.symbol for plan in plans for step in plan.steps)
    ]
    for number, plan in enumerate(plans):
        lines += _tables(plan, str(number))
    lines += [f"HIDDEN const int32_t rl_plan_count = {len(plans)};", f"HIDDEN const rl_plan rl_plans[{len(plans)}] = {{"]
    lines += [f"    {{{_sizes(plan, str(number))}}}," for number, plan in enumerate(plans)]
    return "\n".join([*lines, "};", ""])


def _tables(plan: Plan, number: str) -> Iterator[str]:
    """The operands and steps of plan ``number``, and the functions that count what its dimensions decide."""
    refs = [ref for step in plan.steps for ref in step.refs] or [Ref(Space.ARENA)]
    open_numbers = [str(n) for n in (*(s.num_chunks for s in plan.steps), *(ref.open for ref in refs)) if is_open(n)]
    counts = {text: f"count{number}_{i}" for i, text in enumerate(dict.fromkeys(open_numbers))}
    for text, name in counts.items():
        yield f"static int64_t {name}(const int64_t *dims) {{ return {text}; }}"
    yield f"static const rl_ref refs{number}[{len(refs)}] = {{"
    yield from (f"    {{{int(ref.space)}, {ref.index}, {ref.offset}, {counts.get(str(ref.open), 'NULL')}}}," for ref in refs)
    yield "};"
    yield f"static const rl_step steps{number}[{max(1, len(plan.steps))}] = {{"
    first_ref = 0
    for step in plan.steps:
        count, most = counts.get(str(step.num_chunks), "NULL"), high(step.num_chunks)
        yield f"    {{{step.symbol}, {count}, {most}, {first_ref}, {len(step.refs)}, {int(step.barrier)}}},"
        first_ref += len(step.refs)
    yield "};" if plan.steps else "    {0}};"


def _sizes(plan: Plan, number: str) -> str:
    """The fields of rl_plan."""
    widest = max((high(step.num_chunks) for step in plan.steps), default=1)
    max_threads = min(plan.max_threads or widest, widest)
    max_refs = max((len(step.refs) for step in plan.steps), default=0)
    sizes = (len(plan.steps), plan.num_dims, max_refs, max_threads, plan.arena_bytes, plan.scratch_bytes)
    return f"steps{number}, refs{number}, {', '.join(map(str, sizes))}"
