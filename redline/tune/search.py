"""The search: for every distinct problem the candidates of its family, compiled together and timed one after the other.

Opt-level says how many candidates a problem may have; at level 0 the family's first guess is taken untimed. Times come
from the timing cache where it has them, so a build with a full cache measures nothing and decides the same every time.
"""

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from redline.base import log
from redline.base.errors import BuildError
from redline.base.extents import Undecided, depends_on_data, high
from redline.codegen.c.compile import compile_objects, source
from redline.codegen.c.toolchain import Toolchain
from redline.kernels import FAMILIES
from redline.kernels.ctext import block
from redline.kernels.parts import any_open
from redline.kernels.problem import CpuTarget, KernelCode, Problem
from redline.tune.cache import TimingCache
from redline.tune.harness import Candidate, Harness
from redline.tune.points import points, scores

CANDIDATES = {0: 1, 1: 2, 2: 6, 3: 16, 4: 32, 5: 1 << 30}
NEAR = 1.08  # of the best time: what a constant may cost that need not be packed once more
BATCH = 96  # candidates that share one library


@dataclass(frozen=True)
class Job:
    """A problem to be solved by a kernel of ``family``."""

    family: str
    problem: Problem

    @property
    def key(self) -> str:
        return f"{self.family} {self.problem!r}"


@dataclass(frozen=True)
class Choice:
    """The schedule that won, its code, and how long it took (None: not timed).

    ``near``: others that take hardly longer (``NEAR``), the fastest first.
    """

    job: Job
    schedule: Any
    code: KernelCode
    seconds: float | None
    num_candidates: int
    near: tuple["Choice", ...] = field(default=(), compare=False, repr=False)


OPEN_FAMILIES = (
    "attention", "collect", "conv", "count", "depthwise", "matmul", "nest", "pool", "row", "select", "sort", "suppress",
)  # fmt: skip
_OPEN = f"open extents are for {', '.join(OPEN_FAMILIES)}"

Progress = Callable[[str, int, int], None]


def choose(
    jobs: Sequence[Job], target: CpuTarget, toolchain: Toolchain, opt_level: int, cache: TimingCache, progress: Progress,
    forms: Mapping[Job, Collection[str]] = MappingProxyType({}),
) -> dict[Job, Choice]:  # fmt: skip
    """The choice for every job. ``progress(stage, done, total)`` follows the stages "compile" and "time".

    ``forms``: packings of constants of which a tactic should be among those timed, however far behind it stands.
    """
    candidates = {job: _candidates(job, target, opt_level, forms.get(job, ())) for job in dict.fromkeys(jobs)}
    if opt_level:
        missing = [
            Candidate(job.key, repr(schedule) + point.suffix, point, code)
            for job, options in candidates.items()
            if len(options) > 1
            for point in points(job.problem)
            for schedule, code in options
            if cache.seconds(job.key, repr(schedule) + point.suffix) is None
        ]
        _measure(missing, target, toolchain, cache, progress)
    return {job: _best(job, options, cache, timed=opt_level > 0) for job, options in candidates.items()}


def contest(
    apart: Sequence[Choice], joined: Choice, target: CpuTarget, toolchain: Toolchain, cache: TimingCache
) -> tuple[float, float]:
    """Seconds of some kernels, one after the other, and of the one that may take their place.

    They were timed before, but at other moments: what else the machine did then would decide. Here they take turns, and
    find in the caches only what they bring there themselves.
    """
    distinct = {choice.code.symbol: choice for choice in (*apart, joined)}
    names = "\n".join(f"{choice.job.key} {choice.schedule!r}" for choice in (*apart, joined))
    key = f"contest {hashlib.sha256(names.encode()).hexdigest()}"
    if cache.seconds(key, "apart") is None or cache.seconds(key, "joined") is None:
        candidates = [Candidate(c.job.key, repr(c.schedule), c.job.problem, c.code) for c in distinct.values()]
        objects = compile_objects([source(c.code) for c in distinct.values()], target, toolchain)
        with Harness(candidates, objects, target, toolchain) as harness:
            seconds = dict(zip(distinct, harness.in_turns(), strict=True))
        cache.record(key, "apart", sum(seconds[choice.code.symbol] for choice in apart))
        cache.record(key, "joined", seconds[joined.code.symbol])
        cache.save()
        log.debug(3, f"contest: {'  '.join(f'{c.job.family} {1e6 * seconds[c.code.symbol]:.1f} us' for c in (*apart, joined))}")
    return cache.entries[key]["apart"], cache.entries[key]["joined"]


def _candidates(job: Job, target: CpuTarget, opt_level: int, forms: Collection[str]) -> list[tuple[Any, KernelCode]]:
    """Schedules with their code; two schedules that give the same code are one."""
    if job.family not in OPEN_FAMILIES and any_open(job.problem.reads, job.problem.writes):
        remedy = "fix the shapes, or build an engine for each"
        raise BuildError("--shapes", f"a kernel of the family {job.family} with open extents", allowed=_OPEN, remedy=remedy)
    try:
        return _rendered(job, target, opt_level, forms if opt_level else ())
    except Undecided as question:
        seen = f"a kernel of the family {job.family} depends on {question}"
        raise BuildError("--shapes", seen, "it must be the same for all shapes of the range", "narrow the range") from question


def _rendered(job: Job, target: CpuTarget, opt_level: int, forms: Collection[str]) -> list[tuple[Any, KernelCode]]:
    family = FAMILIES[job.family]
    distinct: dict[str, tuple[Any, KernelCode]] = {}
    missing = set(forms)
    for rank, schedule in enumerate(family.schedules(job.problem, target)):
        if rank >= CANDIDATES[opt_level] and not missing:
            break
        code = _with_known_chunks(family.render(job.problem, schedule, target), job.problem)
        names = {packing.name for packing in code.packings.values()}
        if rank < CANDIDATES[opt_level] or names & missing:
            distinct.setdefault(code.text, (schedule, code))
        missing -= names
    return list(distinct.values())


def _with_known_chunks(code: KernelCode, problem: Problem) -> KernelCode:
    """Chunks are counted when a call begins: where their number is found later, there are as many as there may be."""
    if not depends_on_data(code.num_chunks):
        return code
    text = code.text.replace("void KERNEL(", "static void known_chunk(")
    last = len(problem.reads) + len(problem.writes)
    body = [
        f"const int64_t *const dims = args[{last}];",
        f"if (chunk < {code.num_chunks}) known_chunk(args, scratch, chunk);",
    ]
    lines = block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)
    return replace(code, text="\n".join([text.rstrip(), *lines, ""]), num_chunks=max(1, high(code.num_chunks)))


def _measure(
    missing: Sequence[Candidate], target: CpuTarget, toolchain: Toolchain, cache: TimingCache, progress: Progress
) -> None:
    """Fills the cache, saving it after every batch so that a build cut off keeps what it has learned."""
    texts = [source(candidate.code) for candidate in missing]
    objects = compile_objects(texts, target, toolchain, progress=lambda done, total: progress("compile", done, total))
    for start, end in _batches([(candidate.problem_key, candidate.problem) for candidate in missing]):
        batch = missing[start:end]
        with Harness(batch, objects[start:end], target, toolchain) as harness:
            for i, candidate in enumerate(batch):
                cache.record(candidate.problem_key, candidate.schedule, harness.seconds(i))
                progress("time", start + i + 1, len(missing))
        cache.save()


def _batches(problems: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Ranges of at most BATCH candidates that together are all; one problem's stay together as far as they fit."""
    start = end = 0
    for _, group in itertools.groupby(problems):
        count = len(list(group))
        if end > start and end + count - start > BATCH:
            yield start, end
            start = end
        end += count
        while end - start > BATCH:
            yield start, start + BATCH
            start += BATCH
    if end > start:
        yield start, end


def _best(job: Job, options: Sequence[tuple[Any, KernelCode]], cache: TimingCache, timed: bool) -> Choice:
    times: Mapping[str, float] = cache.entries.get(job.key, {}) if timed else {}
    cost = scores(times, [repr(schedule) for schedule, _ in options], points(job.problem)) if times else {}
    schedule, code = min(options, key=lambda option: cost[repr(option[0])]) if times else options[0]
    near = sorted((o for o in options if times and o[0] is not schedule), key=lambda option: cost[repr(option[0])])
    limit = NEAR * cost[repr(schedule)] if times else 0.0
    others = tuple(
        Choice(job, s, c, times.get(repr(s)), len(options)) for s, c in near if cost[repr(s)] <= limit
    )  # fmt: skip
    seconds = times.get(repr(schedule))
    for other, _ in options:
        log.debug(
            3, f"{job.family}: {other!r} {1e6 * times.get(repr(other), float('nan')):.1f} us {'*' if other is schedule else ''}"
        )
    return Choice(job, schedule, code, seconds, len(options), others)
