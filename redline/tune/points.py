"""Where in its range a kernel of open extents is timed: at the tuned shape, and at two smaller ones.

A schedule that is best at the tuned shape may be a poor one for a tenth of the rows, where reading the weights takes all the
time. In: a problem. Out: the same operands with other tuned extents, which is all that the harness looks at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log

from redline.base.extents import retuned
from redline.kernels.parts import any_open
from redline.kernels.problem import Operand, Problem

SHARES = (1.0, 0.5, 0.25)  # of the way from the smallest to the tuned shape, on a logarithmic scale
WEIGHTS = (2.0, 1.0, 1.0)


@dataclass(frozen=True)
class Point:
    """A problem's operands at one shape. ``suffix`` tells its times from those at the tuned shape, which has none."""

    suffix: str
    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    flops: int = 0


def points(problem: Problem) -> list[Point]:
    """The tuned shape first; nothing else for a problem of closed extents."""
    shares = SHARES if any_open(problem.reads, problem.writes) else SHARES[:1]
    found = [_point(problem, share) for share in shares]
    return list({(point.reads, point.writes): point for point in reversed(found)}.values())[::-1]


def _point(problem: Problem, share: float) -> Point:
    reads, writes = (tuple(_at(operand, share) for operand in side) for side in (problem.reads, problem.writes))
    return Point("" if share == 1 else f" at {share}", reads, writes)


def _at(operand: Operand, share: float) -> Operand:
    return replace(operand, shape=retuned(operand.shape, share), strides=retuned(operand.strides, share))


def scores(times: Mapping[str, float], schedules: Sequence[str], places: Sequence[Point]) -> dict[str, float]:
    """For each schedule how much longer it takes than the fastest, in the weighted geometric mean of the points."""
    total = dict.fromkeys(schedules, 0.0)
    weights = WEIGHTS[: len(places)]
    for place, weight in zip(places, weights, strict=True):
        seen = {schedule: times.get(schedule + place.suffix, float("inf")) for schedule in schedules}
        best = min(seen.values())
        for schedule, seconds in seen.items():
            total[schedule] += weight / sum(weights) * (log(seconds / best) if 0 < best < float("inf") else 0.0)
    return {schedule: exp(value) for schedule, value in total.items()}
