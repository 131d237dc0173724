"""Attention: the ways to compute it."""

from collections.abc import Sequence
from dataclasses import dataclass

from redline.kernels import tile
from redline.kernels.attention.problem import Problem
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Split

CHUNKS_PER_THREAD = 4
KEYS = 512  # keys whose scores are held at once
CAUSAL_KEYS = 128
VALUE_VECTORS = 4


@dataclass(frozen=True)
class Schedule:
    """``query_vectors``: vectors of queries in a block. ``keys``: keys in a block.

    ``stage``: keys and values are first copied side by side; needed for all but contiguous values of the type of sums.
    """

    query_vectors: int
    keys: int
    stage: bool
    max_chunks: int = 1


def query_blocks(problem: Problem, schedule: Schedule, target: CpuTarget) -> Split:
    """Blocks of queries, in vectors."""
    lanes = tile.lanes(problem.acc, target)
    return Split.of_at_most(-(-problem.extents[2] // lanes), schedule.query_vectors)


def must_stage(problem: Problem, target: CpuTarget) -> bool:
    value = problem.reads[2]
    whole = value.shape[3] % tile.lanes(problem.acc, target) == 0
    return value.dtype != problem.acc or value.strides[3] != 1 or not whole


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """The legal candidates, the best guess first: wide blocks, keys and values where they lie."""
    keys = min(problem.extents[3], KEYS if problem.causal is None else CAUSAL_KEYS)
    keys = Split.of_at_most(problem.extents[3], keys).size
    found = []
    for vectors in (4, 2, 1):
        for stage in (False, True):
            if (stage or not must_stage(problem, target)) and tile.tallest(vectors, target) > 1:
                found.append(_cut(problem, Schedule(vectors, keys, stage), target))
    return found


def _cut(problem: Problem, schedule: Schedule, target: CpuTarget) -> Schedule:
    if target.num_threads == 1:
        return schedule
    steps = problem.extents[0] * problem.extents[1] * max(1, query_blocks(problem, schedule, target).count)
    return Schedule(schedule.query_vectors, schedule.keys, schedule.stage, min(steps, CHUNKS_PER_THREAD * target.num_threads))
