"""Attention: the ways to compute it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from redline.kernels import dot, tile
from redline.kernels.attention.problem import Problem
from redline.kernels.dot import Dot
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Split

CHUNKS_PER_THREAD = 4
KEYS = 512  # keys whose scores are held at once
CAUSAL_KEYS = 128
VALUE_VECTORS = 4


@dataclass(frozen=True)
class Schedule:
    """``query_vectors``: vectors of queries in a block. ``keys``: keys in a block.

    ``stage``: keys and values are first copied side by side; needed for all but contiguous values of the type of sums. ``dot``
    names the instruction (kernels/dot.py), "" being the plain one; those that sum pairs want ``stage``, which pairs the values
    and leaves the keys where they lie (attention/tiled.py: those of the matrix unit).
    """

    query_vectors: int
    keys: int
    stage: bool
    max_chunks: int = 1
    dot: str = ""


def query_blocks(problem: Problem, schedule: Schedule, target: CpuTarget) -> Split:
    """Blocks of queries, in vectors."""
    lanes = tile.lanes(problem.acc, target)
    return Split.of_at_most(-(-problem.extents[2] // lanes), schedule.query_vectors)


def way(problem: Problem, schedule: Schedule) -> Dot:
    dtype = problem.reads[0].dtype
    return dot.of(schedule.dot, dtype, dtype) if schedule.dot else dot.plain(problem.acc)


def _pairs(problem: Problem, target: CpuTarget) -> str:
    """The instruction that sums pairs of products, where queries and keys hold their pairs side by side; else ""."""
    query, key = problem.reads[:2]
    best = next(dot.candidates(query.dtype, key.dtype, False, target))
    whole = query.shape[3] % best.group == 0 and query.strides[3] == key.strides[3] == 1
    return best.name if whole else ""


def _tiled(problem: Problem, target: CpuTarget) -> str:
    """The instruction of the matrix unit, where it can read queries and keys in whole steps where they lie; else "".

    Factors are not split here: the probabilities would be split, too, in the middle of the softmax.
    """
    query, key = problem.reads[:2]
    found = dot.tiled(query.dtype, key.dtype, target)
    if not found or found.parts > 1 or not found.acc.is_float or query.strides[3] != 1 or key.strides[3] != 1:
        return ""
    return found.name if query.shape[3] and found.steps(query.shape[3]) * found.group == query.shape[3] else ""


def must_stage(problem: Problem, target: CpuTarget) -> bool:
    value = problem.reads[2]
    whole = value.shape[3] % tile.lanes(problem.acc, target) == 0
    return value.dtype != problem.acc or value.strides[3] != 1 or not whole


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """The legal candidates, the best guess first: wide blocks, keys and values where they lie."""
    keys = min(problem.extents[3], KEYS if problem.causal is None else CAUSAL_KEYS)
    keys = Split.of_at_most(problem.extents[3], keys).size
    pairs, tiles, found = _pairs(problem, target), _tiled(problem, target), []
    for vectors in (2, 4) if tiles else ():
        found.append(_cut(problem, Schedule(vectors, keys, True, dot=tiles), target))
    for vectors in (4, 2, 1):
        for stage in (False, True) if not pairs else (True,):
            if (stage or not must_stage(problem, target)) and tile.tallest(vectors, target) > 1:
                found.append(_cut(problem, Schedule(vectors, keys, stage, dot=pairs), target))
    return found


def _cut(problem: Problem, schedule: Schedule, target: CpuTarget) -> Schedule:
    if target.num_threads == 1:
        return schedule
    steps = problem.extents[0] * problem.extents[1] * max(1, query_blocks(problem, schedule, target).count)
    return replace(schedule, max_chunks=min(steps, CHUNKS_PER_THREAD * target.num_threads))
