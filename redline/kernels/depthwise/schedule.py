"""Depthwise convolutions: the ways to compute one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from redline.base.dtypes import bfloat16, bool_
from redline.base.shapes import size
from redline.kernels import tile
from redline.kernels.conv import geometry
from redline.kernels.ctext import shares
from redline.kernels.depthwise.problem import Problem
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Split

CHUNKS_PER_THREAD = 4
MIN_CHUNK_BYTES = 64 << 10
MAX_COLUMNS = 14
ROWS = 2  # of a tile, where several rows pay


@dataclass(frozen=True)
class Schedule:
    """A register tile of ``columns`` outputs of one row, one vector of channels.

    The rows are cut into ``bands`` chunks, the vectors of channels into ``channel_chunks``. ``staged`` first copies the rows
    that a chunk reads into scratch, with their padding; otherwise borders have tiles of their own. ``ahead``: what the next
    row of outputs reads is asked for while this one is computed. ``paired``: bfloat16 in two vectors of channels (paired.py).
    ``rows``: outputs of so many rows in a tile (rows.py).
    """

    columns: int
    bands: int = 1
    channel_chunks: int = 1
    staged: bool = False
    ahead: bool = False
    paired: bool = False
    rows: int = 1


def is_legal(problem: Problem, schedule: Schedule, target: CpuTarget) -> bool:
    """The one statement of what render accepts."""
    g = geometry.of(problem)
    direct = (problem.x.strides[-1] == 1 or problem.x.shape[-1] == 1) and problem.x.dtype != bool_
    return (
        (schedule.staged or not problem.pad_value)
        and schedule.columns >= 1
        and 1 <= schedule.rows * schedule.columns <= target.num_registers - 4
        and (schedule.rows == 1 or _has_rows(problem, schedule))
        and 1 <= schedule.bands <= g.out_size[1]
        and 1 <= schedule.channel_chunks <= max(1, problem.groups // tile.lanes(problem.acc, target))
        and (schedule.staged or direct)
        and not (schedule.staged and schedule.ahead)
        and (not schedule.paired or (not schedule.staged and _pairs(problem, schedule.columns, target)))
    )


def _has_rows(problem: Problem, s: Schedule) -> bool:
    """Whether the image has so many rows, of which several taps meet one."""
    g = geometry.of(problem)
    return not s.paired and g.taps[0] == g.out_size[0] == 1 < g.taps[1] and g.out_size[1] >= s.rows


def _pairs(problem: Problem, columns: int, target: CpuTarget) -> bool:
    """Whether two vectors of sums a column fit, and the weights can be packed for them."""
    fits = 2 * columns + 6 <= target.num_registers
    return fits and problem.x.dtype == bfloat16 and problem.w.constant and problem.groups >= 2 * tile.lanes(problem.acc, target)


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """The legal candidates, the best guess first."""
    if not size(problem.out.shape):
        return [Schedule(1, staged=True)]
    g = geometry.of(problem)
    width = g.out_size[2]
    limit = min(MAX_COLUMNS, target.num_registers - 6)
    columns = dict.fromkeys(Split.of_at_most(width, most).size for most in (8, 14, 6, 4) if most <= limit)
    found = [_cut(problem, Schedule(count), target) for count in columns]
    found += [replace(candidate, staged=True) for candidate in found[:2]]
    if g.step[1] == 1:  # else two rows of outputs have little in common
        wide = dict.fromkeys(
            Split.of_at_most(width, most).size for most in (7, 8, 5) if ROWS * most <= target.num_registers - 4
        )
        found = [_in_rows(problem, _cut(problem, Schedule(count, rows=ROWS), target), target) for count in wide] + found
    pairs = dict.fromkeys(Split.of_at_most(width, most).size for most in (10, 7, 5))
    found = [_cut(problem, Schedule(count, paired=True), target) for count in pairs if _pairs(problem, count, target)] + found
    return [schedule for schedule in found if is_legal(problem, schedule, target)]


def _in_rows(problem: Problem, s: Schedule, target: CpuTarget) -> Schedule:
    """``s`` with bands, no more than it has, that leave as few single rows over as can be."""
    height = geometry.of(problem).out_size[1]
    whole = {b: sum((end - begin) // s.rows for begin, end in shares(height, b)) for b in range(1, s.bands + 1)}
    even = [b for b in whole if b % target.num_threads == 0] or [s.bands]
    return replace(s, bands=max(even, key=lambda b: (whole[b], b)))


def _cut(problem: Problem, s: Schedule, target: CpuTarget) -> Schedule:
    """``s`` with enough chunks for every thread: bands of rows, and parts of the channels only where rows are too few.

    Parts of the channels of one pixel lie side by side: the processor, reading ahead, takes lines that another core writes.
    """
    s = replace(s, ahead=not s.staged and problem.x.num_bytes > target.l2_bytes * target.num_threads)
    if target.num_threads == 1:
        return s
    g = geometry.of(problem)
    num_bytes = problem.x.num_bytes + problem.out.num_bytes
    wanted = min(CHUNKS_PER_THREAD * target.num_threads, max(1, num_bytes // MIN_CHUNK_BYTES))
    wanted = -(-wanted // (g.batch * g.out_size[0] * target.num_threads)) * target.num_threads
    bands = min(g.out_size[1], wanted)
    if bands >= target.num_threads:
        return replace(s, bands=bands)
    most_channels = max(1, problem.groups // tile.lanes(problem.acc, target))
    return replace(s, bands=bands, channel_chunks=min(most_channels, -(-wanted // bands)))
