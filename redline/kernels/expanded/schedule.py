"""A convolution of one tap and the depthwise one behind it: the ways to compute both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from redline.base.shapes import size
from redline.kernels import depthwise, matmul, tile
from redline.kernels.conv import geometry, pointwise
from redline.kernels.conv.geometry import Geometry
from redline.kernels.ctext import shares
from redline.kernels.expanded.problem import Problem
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Panels, Split

NEAR_SHARE, FAR_SHARE = 0.6, 0.4  # of the first- and the second-level cache, for what is held between the two
MAX_TILES = 3
FILTERS = {True: ((2, 7), (1, 8)), False: ((1, 8), (1, 14))}  # rows and columns of depthwise tiles, by whether rows share much
LARGE_BYTES = 128 << 10  # of weights, from which on they come from memory rather than from a cache
MAX_REPEATED = 1.3  # times the pixels of the image, of which bands compute some more than once


@dataclass(frozen=True)
class Schedule:
    """The image is cut into ``bands`` of rows of the result, the channels into ``parts`` of whole panels.

    A chunk is a part of a band: tiles of ``rows`` x ``vectors`` write what the band needs into scratch, of which tiles of
    ``filter_rows`` x ``columns`` make the result. ``prefetch``: the next panel of weights is fetched while this one is used.
    """

    rows: int
    vectors: int
    columns: int
    bands: int = 1
    parts: int = 1
    filter_rows: int = 1
    prefetch: bool = False

    @property
    def product(self) -> matmul.Schedule:
        return matmul.Schedule(self.rows, self.vectors, prefetch=self.prefetch)

    @property
    def taps(self) -> depthwise.Schedule:
        return depthwise.Schedule(self.columns, rows=self.filter_rows)


def panels(problem: Problem, s: Schedule, target: CpuTarget) -> Panels:
    lanes = tile.lanes(problem.first.acc, target)
    return Panels(problem.first.w.shape[0], s.vectors * lanes, lanes)


def held_channels(problem: Problem, s: Schedule, target: CpuTarget) -> int:
    """Channels of the largest part, whole panels."""
    cut = panels(problem, s, target)
    return -(-cut.count // s.parts) * cut.width


def held_rows(g: Geometry, bands: int) -> list[int]:
    """Rows of the depthwise convolution's input that each band of its result reads."""
    return [_last(g, end) - _first(g, begin) for begin, end in shares(g.out_size[1], bands)]


def _first(g: Geometry, row: int) -> int:
    return max(0, row * g.step[1] - g.pad[1])


def _last(g: Geometry, row: int) -> int:
    """The end of what the rows of the result before ``row`` read."""
    return min(g.size[1], (row - 1) * g.step[1] + g.span(1, 1) - g.pad[1])


def is_legal(problem: Problem, s: Schedule, target: CpuTarget) -> bool:
    """The one statement of what render accepts."""
    g = geometry.of(problem.second)
    return (
        tile.fits(s.rows, s.vectors, target)
        and 1 <= s.bands <= g.out_size[1]
        and 1 <= s.parts <= panels(problem, s, target).count
        and 1 <= s.rows <= g.size[2] * min(held_rows(g, s.bands))
        and depthwise.is_legal(problem.second, s.taps, target)
        and (not s.prefetch or g.batch * s.bands == 1)
    )


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """The legal candidates, the best guess first."""
    if not size(problem.second.out.shape):
        return [Schedule(1, 1, 1)]
    found: dict[Schedule, None] = {}
    shapes = _tiles(problem, target)
    for high, most in FILTERS[problem.second.strides[0] == 1]:
        columns = Split.of_at_most(problem.second.out.shape[2], min(most, (target.num_registers - 6) // high)).size
        for rows, vectors in shapes:
            for s in _cuts(problem, Schedule(rows, vectors, columns, filter_rows=high), target):
                found[s] = None
    return [s for s in found if is_legal(problem, s, target)] or [_smallest(problem, target)]


def _smallest(problem: Problem, target: CpuTarget) -> Schedule:
    return Schedule(1, 1, min(problem.second.out.shape[2], 4))


def _tiles(problem: Problem, target: CpuTarget) -> list[tuple[int, int]]:
    """(rows, vectors) of the best tiles of the product alone."""
    alone = matmul.FAMILY.schedules(pointwise.as_product(problem.first), replace(target, num_threads=1))
    found = dict.fromkeys((s.rows, s.vectors) for s in alone if not (s.swapped or s.halved or s.dot))
    return list(found)[:MAX_TILES] or [(1, 1)]


def _cuts(problem: Problem, s: Schedule, target: CpuTarget) -> Iterator[Schedule]:
    """``s`` with what is held in the first-level cache, or in the second, computing as few pixels twice as that allows."""
    g, large = geometry.of(problem.second), problem.first.w.num_bytes > LARGE_BYTES
    pixel = problem.first.acc.size * g.size[2]
    for limit in (target.l1_bytes * NEAR_SHARE, target.l2_bytes * FAR_SHARE):
        pairs = []
        for parts in range(1, panels(problem, s, target).count + 1):
            cut = replace(s, parts=parts)
            row = pixel * held_channels(problem, cut, target)
            bands = next((b for b in range(1, g.out_size[1] + 1) if max(held_rows(g, b)) * row <= limit), 0)
            while bands and bands < g.out_size[1] and g.batch * bands * parts % target.num_threads:
                bands += 1
            if bands and sum(held_rows(g, bands)) <= MAX_REPEATED * g.size[1]:
                pairs.append(
                    (sum(held_rows(g, bands)), parts, replace(cut, bands=bands, prefetch=large and g.batch * bands == 1))
                )
        yield from [cut for _, _, cut in sorted(pairs, key=lambda pair: pair[:2])[:2]]
