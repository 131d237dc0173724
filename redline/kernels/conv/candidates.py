"""Convolutions: the schedules worth trying, the cheapest by the cost model first."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from redline.base.shapes import size
from redline.kernels import amx, dot, tile
from redline.kernels.conv import filtering, geometry, pointwise
from redline.kernels.conv.geometry import Geometry
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.schedule import (
    Direct,
    Flat,
    Pointwise,
    Schedule,
    Winograd,
    dots,
    flat_way,
    is_legal,
    must_stage,
    suits_winograd,
    summed,
    way,
)
from redline.kernels.matmul.schedule import SHORT_STEPS, TILED_SPEED, tile_cost
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Split

MAX_VECTORS = 8
MAX_TILES = 6
LARGE_BYTES = 128 << 10  # of constant weights, from which on they come from memory rather than from a cache
MIN_WINOGRAD_CHANNELS = 16  # with fewer the transforms cost more than they save
DIRECT_BESIDE_OTHERS = 2  # direct candidates where there are others
CHUNKS_PER_THREAD = 4
COPIES_PER_THREAD = 2  # in which chunks of filters that each copy the rows are as few as still spread evenly
SHORT_ROW = 10  # outputs, beside which a tile has room for more
MIN_CHUNK_FLOPS = 400_000
FLAT_TILES = ((2, 2), (3, 1), (2, 1))  # bands and vectors of flat.py's tiles
FLAT_CHUNKS = 2  # a thread
PAYS, PAYS_A_COPY = 0.95, 0.8  # shares of the tiles, where the rows are staged in any case and where they need not be
FEW_TILES = 4  # too short to fetch the next panel meanwhile
COPY_READS = 2  # what copying a byte costs beside reading one
PICTURE_SHARE = 0.06  # of the second-level cache, for the staged rows of an image of a few channels on the matrix unit
MAX_SCRATCH_SHARE = 0.6  # of the second-level cache, for the staged rows of a chunk


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """The legal candidates, the cheapest by the cost model first; as for matmul/schedule.py where factors may be split."""
    if not size(problem.out.shape):
        return [Direct(1, 1, 1)]
    return dot.by_turns(lambda target: _of_one_unit(problem, target), target)


def _of_one_unit(problem: Problem, target: CpuTarget) -> list[Schedule]:
    g = geometry.of(problem)
    if pointwise.applies(problem):
        products = [Pointwise(s) for s in pointwise.product_schedules(problem, target)]
        strided = [*_flats(g, problem, target), *_tiles_of_rows(g, problem, target)] if max(g.step) > 1 else []
        return [*strided, *products] if _flat_saves(g, PAYS_A_COPY) else [*products[:1], *strided, *products[1:]]
    flats = _flats(g, problem, target)
    minimal = list(_winograds(g, problem, target)) if _pays_winograd(g, problem, target) else []
    tiles = sorted(dict.fromkeys(_tiles(g, problem, target)), key=lambda s: _cost(g, problem, s, target))[
        : DIRECT_BESIDE_OTHERS if minimal or flats else MAX_TILES
    ]
    found: dict[Schedule, None] = {}
    for candidate in tiles:
        found[_cut(g, problem, candidate, target)] = None
    for candidate in _short(g, problem, target):
        found[candidate] = None
    best = next(iter(found))
    assert isinstance(best, Direct)
    others = replace(best, staged=not best.staged), replace(best, prefetch=not best.prefetch)
    found |= dict.fromkeys((*_fewer_copies(best, target), *others))
    legal = [schedule for schedule in (*minimal, *found) if is_legal(problem, schedule, target)]
    return [*flats, *legal] if flats and _flat_saves(g, PAYS) else [*legal[:1], *flats, *legal[1:]]


def of_even_rows(problem: Problem, target: CpuTarget) -> list[Direct]:
    """Direct tiles, all of as many rows of outputs, for a convolution whose rows are asked for a few at a time."""
    g = geometry.of(problem)
    tiles = dict.fromkeys(each for s in _tiles(g, problem, target) for each in (s, replace(s, height=1)))
    tiles = dict.fromkeys(s for s in tiles if g.out_size[1] % s.height == 0)
    return [s for s in sorted(tiles, key=lambda s: _cost(g, problem, s, target)) if is_legal(problem, s, target)]


def _pays_winograd(g: Geometry, problem: Problem, target: CpuTarget) -> bool:
    best = dots(problem, target)[0]
    few_saved = (best.tiled and best.parts == 1) or (
        g.step[1] == 2 and best.group > 1
    )  # less than an instruction for pairs or tiles saves
    return suits_winograd(g, problem) and not few_saved and min(g.channels, g.filters) >= MIN_WINOGRAD_CHANNELS


def _tiles_of_rows(g: Geometry, problem: Problem, target: CpuTarget) -> list[Schedule]:
    """For a strided convolution of one tap: tiles of several rows, where a row of outputs is too short for a whole one.

    The rows of its product do not merge, so that each row of the image would read all the weights.
    """
    best = dots(problem, target)[0]
    if best.tiled or g.out_size[2] > SHORT_ROW or g.out_size[1] == 1:
        return []
    tiles = sorted((replace(s, staged=True) for s in _tiles(g, problem, target)), key=lambda s: _cost(g, problem, s, target))
    cut = [_cut(g, problem, s, target) for s in dict.fromkeys(tiles[:DIRECT_BESIDE_OTHERS])]
    found = [each for s in cut for each in (*_fewer_copies(s, target), s)]
    return [s for s in found if is_legal(problem, s, target)]


def _fewer_copies(s: Direct, target: CpuTarget) -> list[Direct]:
    """``s`` in fewer chunks, each of which copies the rows anew."""
    few = COPIES_PER_THREAD * target.num_threads
    return [replace(s, panel_chunks=few)] if s.staged and s.bands == 1 and s.panel_chunks > few else []


def _flat_saves(g: Geometry, share: float) -> bool:
    """Whether flattened rows need less than this share of the tiles that rows one by one do."""
    one_by_one = g.out_size[1] * -(-g.out_size[2] // amx.ROWS)
    positions = g.out_size[1] * (g.out_size[2] + g.taps[2] // (2 * g.step[2]))
    return -(-positions // amx.ROWS) < share * one_by_one


def _flats(g: Geometry, problem: Problem, target: CpuTarget) -> list[Flat]:
    """The shapes of tiles that need the fewest instructions, cut so that the least is read."""
    how = flat_way(g, problem, target)
    if how is None:
        return []
    widest = -(-g.filters // tile.lanes(problem.acc, target))
    shapes = dict.fromkeys((height, min(vectors, widest)) for height, vectors in FLAT_TILES)
    cut = [_cut_flat(g, problem, Flat(height, vectors, how.name), target) for height, vectors in shapes]
    large = problem.w.num_bytes > LARGE_BYTES
    return [*cut, *(replace(s, prefetch=True) for s in cut if large and not s.prefetch and not s.rows_outer)]


def _cut_flat(g: Geometry, problem: Problem, s: Flat, target: CpuTarget) -> Flat:
    """``s`` with the bands and parts that copy and read the least, and bands that stay in the second-level cache."""
    panels, size_of_x = g.panels(s.vectors, problem, target).count, problem.x.num_bytes
    threads, weights = target.num_threads, problem.w.num_bytes
    least = -(-size_of_x // int(target.l2_bytes * MAX_SCRATCH_SHARE))
    pairs = [(bands, min(panels, -(-threads // bands))) for bands in range(least, g.out_size[1] + 1)]
    enough = [pair for pair in pairs if pair[0] * pair[1] * g.batch % threads == 0] or [(g.out_size[1], 1)]
    bands, parts = min(enough, key=lambda pair: (pair[1] * size_of_x * COPY_READS + pair[0] * weights, pair))
    if parts == 1 and threads > 1 and problem.flops > FLAT_CHUNKS * threads * MIN_CHUNK_FLOPS * TILED_SPEED:
        bands = min(g.out_size[1], max(bands, FLAT_CHUNKS * threads))  # whoever is early takes a band of the others
    rows_outer = size(g.taps) == 1 and weights <= parts * target.l2_bytes // 2
    shared = g.out_size[1] * g.out_size[2] // bands > FEW_TILES * amx.ROWS * s.height  # a panel, by so many tiles
    prefetch = weights > LARGE_BYTES and shared and not rows_outer
    return replace(s, bands=bands, panel_chunks=parts, rows_outer=rows_outer, prefetch=prefetch)


def _winograds(g: Geometry, problem: Problem, target: CpuTarget) -> Iterator[Winograd]:
    """Wide and narrow tiles; the threads share the blocks or, first where weights come from memory, the filters."""
    lanes = tile.lanes(problem.acc, target)
    for outputs, width in ((4, 4), (4, 2), (2, 4)) if g.step[1] == 1 else ((4, 2), (3, 2), (2, 4)):
        vectors = min(width, -(-g.filters // lanes))
        most_parts = min(target.num_threads, g.panels(vectors, problem, target).count)
        weight_bytes = filtering.patch(g.step[1], outputs) ** 2 * g.channels * g.filters * problem.acc.size
        for parts in sorted({1, most_parts}, reverse=weight_bytes > target.l2_bytes * 4):
            sharing = target.num_threads if parts == 1 else 1
            chunks = _block_chunks(g, problem, target, outputs, sharing)
            if parts > 1 and chunks > 1:
                continue
            rows = Split.of_at_most(-(-g.num_blocks(outputs) // chunks), tile.tallest(vectors, target)).size
            yield Winograd(outputs, rows, vectors, chunks, parts, weight_bytes > LARGE_BYTES)


def _block_chunks(g: Geometry, problem: Problem, target: CpuTarget, outputs: int, sharing: int) -> int:
    """Chunks whose transformed patches stay in the second-level cache, a multiple of the threads that share them."""
    num_blocks, block_bytes = g.num_blocks(outputs), filtering.patch(g.step[1], outputs) ** 2 * g.channels * problem.acc.size
    share = MAX_SCRATCH_SHARE if sharing > 1 or num_blocks * block_bytes > target.l2_bytes else 1
    chunks = -(-num_blocks * block_bytes // int(target.l2_bytes * share))
    return min(num_blocks, -(-chunks // sharing) * sharing)


def _tiles(g: Geometry, problem: Problem, target: CpuTarget) -> Iterator[Direct]:
    """The largest tile of each width in filters, and the largest of at most 12 and 8 outputs."""
    best = dots(problem, target)[0]
    staged = must_stage(g, problem, best)
    lanes = tile.lanes(problem.acc, target)
    if best.tiled:
        width = Split.of_at_most(g.out_size[2], amx.ROWS).size
        for height in range(1, min(amx.MAX_BANDS, g.out_size[1]) + 1):
            for vectors in range(1, min(amx.MAX_VECTORS, -(-g.filters // lanes)) + 1):
                if amx.fits(height, vectors):
                    yield Direct(Split.of_at_most(g.out_size[1], height).size, width, vectors, staged=staged, dot=best.name)
        return
    for vectors in range(1, min(MAX_VECTORS, -(-g.filters // lanes)) + 1):
        most = tile.tallest(vectors, target)
        for limit in {most, min(most, 12), min(most, 8)} - {0}:
            width = Split.of_at_most(g.out_size[2], limit).size
            height = Split.of_at_most(g.out_size[1], limit // width).size
            yield Direct(height, width, vectors, staged=staged, dot=best.name)


def _short(g: Geometry, problem: Problem, target: CpuTarget) -> Iterator[Direct]:
    """Small tiles of one vector, in bands of rows, for short sums: matmul/schedule.py says why. The input is staged once."""
    best = dots(problem, target)[0]
    inner = summed(g, problem, best)
    if best.tiled or best.steps(inner.channels) * size(inner.taps) > SHORT_STEPS:
        return
    for limit in (8, min(14, tile.tallest(1, target))):
        width = Split.of_at_most(g.out_size[2], limit).size
        s = _cut(g, problem, Direct(1, width, 1, staged=must_stage(g, problem, best), dot=best.name), target)
        yield replace(s, bands=min(g.out_size[1], s.bands * s.panel_chunks), panel_chunks=1)


def _cost(g: Geometry, problem: Problem, s: Direct, target: CpuTarget) -> float:
    """Cycles of one image and group on one core, by the cost of its tiles."""
    how = way(problem, s)
    inner = summed(g, problem, how)
    cut, steps = g.panels(s.vectors, problem, target), how.steps(inner.channels) * size(inner.taps)
    total = 0.0
    for rows, num_rows in Split.of_at_most(g.out_size[1], s.height).kinds():
        for columns, num_columns in Split.of_at_most(g.out_size[2], s.width).kinds():
            for width, num in ((cut.width, cut.num_full), (cut.last_width, 1 if cut.rest else 0)):
                once = tile_cost(rows * columns, width // cut.lanes, steps, how, target)
                total += num_rows * num_columns * num * once
    return total


def _cut(g: Geometry, problem: Problem, s: Direct, target: CpuTarget) -> Direct:
    """``s`` with enough chunks for every thread, and rows of a chunk that stay in the second-level cache."""
    rows, panels = Split.of_at_most(g.out_size[1], s.height).count, g.panels(s.vectors, problem, target).count
    how = way(problem, s)
    outer = g.batch * g.groups * g.out_size[0]
    wanted = 1
    if target.num_threads > 1:
        least = MIN_CHUNK_FLOPS * (TILED_SPEED if how.tiled else 1)
        wanted = min(CHUNKS_PER_THREAD * target.num_threads, max(1, problem.flops // least))
    wanted = -(-wanted // outer)
    row_bytes = g.taps[0] * g.span(2, g.out_size[2]) * g.channels * problem.acc.size
    pictures = bool(how.tiled) and summed(g, problem, how) != g  # few channels: little is read twice where bands are narrow
    share = PICTURE_SHARE if pictures else MAX_SCRATCH_SHARE
    most_rows = max(1, int(target.l2_bytes * share / row_bytes))  # input rows
    bands = next((b for b in range(1, rows + 1) if g.span(1, -(-rows // b) * s.height) <= most_rows), rows)
    while bands * panels < wanted and bands < rows:
        bands += 1
    panel_chunks = min(panels, -(-wanted // bands))
    prefetch = problem.w.constant and problem.w.num_bytes > LARGE_BYTES
    return replace(s, bands=bands, panel_chunks=panel_chunks, prefetch=prefetch)
