"""Products with weights of few bits: the ways to compute one."""

from collections.abc import Sequence
from dataclasses import dataclass

from redline.kernels import tile
from redline.kernels.nbits.problem import Problem
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Panels, Split

MAX_VECTORS = 4
MAX_ROWS = 6
CHUNKS_PER_THREAD = 4
MIN_CHUNK_FLOPS = 100_000
GROUP_BYTES = 256 << 10  # of rows of x that are copied at once


@dataclass(frozen=True)
class Schedule:
    """A register tile of ``rows`` x ``vectors``. The rows are cut into ``groups`` that are copied, the panels into chunks."""

    rows: int
    vectors: int
    groups: int = 1
    panel_chunks: int = 1


def panels(problem: Problem, schedule: Schedule, target: CpuTarget) -> Panels:
    lanes = tile.lanes(problem.acc, target)
    return Panels(problem.n, schedule.vectors * lanes, lanes)


def is_legal(problem: Problem, schedule: Schedule, target: CpuTarget) -> bool:
    return (
        1 <= schedule.rows <= max(1, _tallest(schedule.vectors, target))
        and 1 <= schedule.groups <= max(1, problem.m)
        and 1 <= schedule.panel_chunks <= max(1, panels(problem, schedule, target).count)
    )


def _tallest(vectors: int, target: CpuTarget) -> int:
    """The most rows for which the sums, those of a block, a row of weights and a scalar have registers."""
    return min(MAX_ROWS, (target.num_registers - vectors - 2) // (2 * vectors))


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """Wide tiles first: for few rows more columns are more sums at a time."""
    lanes = tile.lanes(problem.acc, target)
    groups = max(1, min(problem.m, -(-problem.m * problem.k * problem.acc.size // GROUP_BYTES)))
    found = []
    for vectors in range(min(MAX_VECTORS, max(1, -(-problem.n // lanes))), 0, -1):
        most = min(_tallest(vectors, target), max(1, problem.m))
        if most < 1:
            continue
        rows = Split.of_at_most(max(1, problem.m), most).size
        cut = Schedule(rows, vectors, groups)
        wanted = 1
        if target.num_threads > 1:
            wanted = min(CHUNKS_PER_THREAD * target.num_threads, max(1, problem.flops // MIN_CHUNK_FLOPS))
        chunks = min(max(1, panels(problem, cut, target).count), -(-wanted // groups))
        found.append(Schedule(rows, vectors, groups, chunks))
    return found
