"""Matrix products: the ways to compute one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from redline.base.extents import at_nominal
from redline.base.shapes import size
from redline.kernels import amx, dot, tile
from redline.kernels.dot import Dot
from redline.kernels.matmul import gemm as gemms
from redline.kernels.matmul.gemm import Gemm
from redline.kernels.matmul.problem import Problem
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Panels, Split

MAX_VECTORS = 8
CHUNKS_PER_THREAD = 8
MIN_CHUNK_FLOPS = 400_000  # about 4 us of one core
MIN_CHUNK_BYTES = 64 << 10  # about 5 us of one core, where reading takes longer than multiplying
TILED_SPEED = 8  # of the matrix unit, in vector units
SCATTER_CYCLES = 1.5  # to store one element when rows of out are not contiguous
PACKING_READS = 16  # reads of an element that packing it is worth; on the matrix unit, one that comes from memory
MAX_TILES, MAX_TILED = 6, 3  # candidates on the vector and the matrix unit
SHORT_STEPS = 96  # of a sum: storing the results is then a part worth hiding
SHORT_TILES = ((8, 1), (12, 1))
SPLITTING_READS = 8  # reads of an element that splitting it is worth
LARGE_BYTES = 128 << 10  # of constant weights, from which on they come from memory rather than from a cache
L1_WAYS = 8  # rows that may fall on one set
WIDE_BYTES = 64  # of vectors that a processor with them can also halve, without losing registers
HALF_COST = 0.54  # of a whole vector
MAX_HALVED = 128  # columns; of more, the half vector at the end is a small part
FOURS = 4  # products of bytes that an instruction sums
SHORT_BYTE_STEPS = 64  # instructions a sum of bytes, up to which its epilogue shows
SMALL_ROWS, SMALL_VECTORS = (2, 3, 4), 4
PAGE_BYTES = 4096  # rows this far apart compete for the same set of the first-level cache


@dataclass(frozen=True)
class Schedule:
    """A register tile of ``rows`` x ``vectors``, and the chunks into which a batch's rows and panels are cut.

    ``swapped`` computes the transposed product. ``staged`` first copies the rows of a chunk into scratch. ``prefetch``:
    the next panel of constant weights is fetched while this one is used. ``rows_outer`` takes all panels for one tile of
    rows, then the next rows; otherwise all rows for one panel. ``dot`` names the instruction (kernels/dot.py), "" being
    the plain one. ``halved``: vectors are half as wide as the target's, for columns that do not fill whole ones.
    """

    rows: int
    vectors: int
    row_chunks: int = 1
    panel_chunks: int = 1
    swapped: bool = False
    staged: bool = False
    rows_outer: bool = False
    prefetch: bool = False
    dot: str = ""
    halved: bool = False


def in_vectors_of(schedule: Schedule, target: CpuTarget) -> CpuTarget:
    """``target`` as a kernel of this schedule sees it."""
    return replace(target, vector_bytes=target.vector_bytes // 2) if schedule.halved else target


def is_legal(problem: Problem, schedule: Schedule, target: CpuTarget) -> bool:
    """The one statement of what render accepts."""
    g = gemms.of(problem, schedule.swapped)
    if schedule.dot not in [dot.name for dot in dots(problem, schedule.swapped, target)]:
        return False
    return (
        _fits(way(problem, schedule), schedule, target)
        and 1 <= schedule.row_chunks <= Split.of_at_most(g.m, schedule.rows).count
        and 1 <= schedule.panel_chunks <= panels(g, schedule, problem, target).count
        and (schedule.staged or not must_stage(g, way(problem, schedule)))
        and (g.w_constant or not schedule.rows_outer or not needs_packing(g, schedule, problem, target))
        and (not schedule.prefetch or (g.w_constant and not schedule.rows_outer))
        and (not schedule.halved or target.vector_bytes == WIDE_BYTES)
    )


def _fits(dot: Dot, schedule: Schedule, target: CpuTarget) -> bool:
    if not dot.tiled:
        return tile.fits(schedule.rows, schedule.vectors, target)
    return amx.fits(amx.bands_of(schedule.rows).count, schedule.vectors) and not schedule.halved


def dots(problem: Problem, swapped: bool, target: CpuTarget) -> list[Dot]:
    """The ways to multiply, the fastest first."""
    g = gemms.of(problem, swapped)
    x, w = problem.reads[g.x_arg].dtype, problem.reads[g.w_arg].dtype
    tiled = dot.tiled(x, w, target) if g.k else None
    return ([tiled] if tiled else []) + list(dot.candidates(x, w, g.w_constant, target))


def way(problem: Problem, schedule: Schedule) -> Dot:
    g = gemms.of(problem, schedule.swapped)
    return dot.of(schedule.dot, problem.reads[g.x_arg].dtype, problem.reads[g.w_arg].dtype)


def must_stage(g: Gemm, dot: Dot) -> bool:
    """Whether x cannot be read in place: another type, or groups that do not lie side by side."""
    whole = dot.group == 1 or (g.x[-1] == 1 and g.k == dot.steps(g.k) * dot.group)
    return g.reads[g.x_arg].dtype != dot.x or dot.offset != 0 or not whole


def panels(g: Gemm, schedule: Schedule, problem: Problem, target: CpuTarget) -> Panels:
    lanes = tile.lanes(problem.acc, in_vectors_of(schedule, target))
    return Panels(g.n, schedule.vectors * lanes, lanes)


def needs_packing(g: Gemm, schedule: Schedule, problem: Problem, target: CpuTarget) -> bool:
    """Whether some panel of a run-time w must be copied: not contiguous in n, grouped, converted, or not whole vectors."""
    cut = panels(g, schedule, problem, target)
    whole = cut.rest % cut.lanes == 0
    dot = way(problem, schedule)
    return not g.w_constant and (g.w[-1] != 1 or dot.group > 1 or g.reads[g.w_arg].dtype != dot.w or not whole)


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """The legal candidates, the cheapest by ``_cost`` first; at the end one of each width, for who wants that packing.

    Where factors may be split, those of the matrix unit and of the vector unit by turns.
    """
    if not size(problem.out.shape):
        return [Schedule(1, 1)]
    return dot.by_turns(lambda target: _of_one_unit(problem, target), target)


def _of_one_unit(problem: Problem, target: CpuTarget) -> list[Schedule]:
    tiles = sorted(_tiles(problem, target), key=lambda s: _cost(problem, s, target))
    found: dict[Schedule, None] = {}
    fastest = dots(problem, False, target)[0]
    for candidate in tiles[: MAX_TILED if fastest.tiled else MAX_TILES]:
        for chunks in (CHUNKS_PER_THREAD, 1) if fastest.parts > 1 else (CHUNKS_PER_THREAD,):  # each splits what it reads
            for in_cache in (True, False):
                found[_cut(problem, candidate, target, in_cache, chunks)] = None
    best = next(iter(found))
    small = [_cut(problem, s, target) for s in _small_tiles(problem, best, target)]
    ordered = dict.fromkeys((best, *small, *(replace(s, rows_outer=True, prefetch=False) for s in small), *found))
    for candidate in _short(problem, target):
        ordered[_cut(problem, candidate, target)] = None
    for variant in _variants(problem, best, target):
        ordered[variant] = None
    for tile_of_width in {(s.vectors, s.swapped): s for s in reversed(tiles)}.values():
        ordered[_cut(problem, tile_of_width, target)] = None
    return [schedule for schedule in ordered if is_legal(problem, schedule, target)]


def _small_tiles(problem: Problem, best: Schedule, target: CpuTarget) -> Iterator[Schedule]:
    """For short sums of bytes: tiles with an epilogue so short that the processor begins the next products meanwhile."""
    g, dot = gemms.of(problem, best.swapped), way(problem, best)
    vectors = min(SMALL_VECTORS, -(-g.n // tile.lanes(problem.acc, target)))
    if dot.group == FOURS and dot.steps(g.k) <= SHORT_BYTE_STEPS and not best.swapped and not dot.tiled:
        for rows in dict.fromkeys(Split.of_at_most(g.m, most).size for most in SMALL_ROWS):
            yield replace(best, rows=rows, vectors=vectors, row_chunks=1, panel_chunks=1)


def _tiles(problem: Problem, target: CpuTarget) -> Iterator[Schedule]:
    """The tallest tile of each width, and the tallest of at most 12 and 8 rows, with rows that divide m evenly."""
    lanes = tile.lanes(problem.acc, target)
    for swapped in (False, True):
        g, best = gemms.of(problem, swapped), dots(problem, swapped, target)[0]
        must, aliases = must_stage(g, best), _aliases(g, problem)
        if best.tiled:
            again = best.parts > 1 and problem.reads[g.x_arg].constant  # weights would be split in every call
            for rows, vectors in () if again else amx.shapes(g.m, g.n):
                yield Schedule(rows, vectors, swapped=swapped, staged=must, dot=best.name)
            continue
        for vectors in range(1, min(MAX_VECTORS, -(-g.n // lanes)) + 1):
            most = tile.tallest(vectors, target)
            for rows in {Split.of_at_most(g.m, limit).size for limit in (most, min(most, 12), min(most, 8)) if limit}:
                staged = must or (aliases and rows > L1_WAYS)
                yield Schedule(rows, vectors, swapped=swapped, staged=staged, dot=best.name)
        if not swapped and target.vector_bytes == WIDE_BYTES and 0 < g.n % lanes <= lanes // 2 and g.n < MAX_HALVED:
            for vectors in range(2, 6):
                rows = Split.of_at_most(g.m, tile.tallest(vectors, target)).size
                yield Schedule(rows, vectors, staged=must, dot=best.name, halved=True)


def _short(problem: Problem, target: CpuTarget) -> Iterator[Schedule]:
    """Small tiles for short sums: while the results of one are stored, the processor is already at the next."""
    g, best = gemms.of(problem), dots(problem, False, target)[0]
    if best.group < FOURS and best.steps(g.k) <= SHORT_STEPS and not must_stage(g, best) and not best.tiled:
        for rows, vectors in SHORT_TILES:
            if g.m >= rows and g.n >= vectors * tile.lanes(problem.acc, target) and tile.fits(rows, vectors, target):
                yield Schedule(rows, vectors, rows_outer=True, dot=best.name)


def _aliases(g: Gemm, problem: Problem) -> bool:
    """Whether the rows of x fall on the same cache sets, so that a copy with another distance pays."""
    return g.m > 4 and g.n > 32 and g.k > 1 and rows_collide(g, problem.a.dtype.size) and g.x[-2] != 0


def rows_collide(g: Gemm, element_bytes: int) -> bool:
    """Whether the rows of x fall on the same sets of the first-level cache."""
    return at_nominal(g.x[-2]) * element_bytes % PAGE_BYTES == 0


def _cost(problem: Problem, s: Schedule, target: CpuTarget) -> float:
    """Cycles of one batch on one core, by the cost of its tiles and of packing w."""
    g = gemms.of(problem, s.swapped)
    parts, cut, dot = Split.of_at_most(g.m, s.rows), panels(g, s, problem, target), way(problem, s)
    total, each = 0.0, HALF_COST if s.halved else 1.0
    for rows, count in parts.kinds():
        for width, num in ((cut.width, cut.num_full), (cut.last_width, 1 if cut.rest else 0)):
            total += each * count * num * tile_cost(rows, width // cut.lanes, dot.steps(g.k), dot, target)
    if needs_packing(g, s, problem, target):
        total += g.k * cut.padded * (0.5 if g.w[-1] == 1 else 1.5)
    if g.out[-1] != 1 and g.n > 1:
        total += SCATTER_CYCLES * g.m * g.n
    return total * g.num_batches


def tile_cost(rows: int, vectors: int, steps: int, dot: Dot, target: CpuTarget) -> float:
    """Cycles of one tile of ``steps`` groups, on the unit that ``dot`` runs on."""
    if not dot.tiled:
        return tile.cost(rows, vectors, steps, dot, target)
    return amx.cost(rows, vectors, steps, target.l1_bytes // dot.parts, len(dot.products))


def _cut(problem: Problem, s: Schedule, target: CpuTarget, in_cache: bool = True, chunks: int = CHUNKS_PER_THREAD) -> Schedule:
    """``s`` with the chunks that read the least while there are enough of them, if possible ``chunks`` a thread.

    ``in_cache``: rows of a chunk stay there.
    """
    g = gemms.of(problem, s.swapped)
    row_tiles, num_panels = Split.of_at_most(g.m, s.rows).count, panels(g, s, problem, target).count
    dot = way(problem, s)
    wanted = -(-_wanted_chunks(problem, dot, target, chunks) // g.num_batches)
    pairs = [(r, min(num_panels, -(-wanted // r))) for r in range(1, min(row_tiles, wanted) + 1)]
    enough = [pair for pair in pairs if pair[0] * pair[1] >= wanted] or pairs[-1:]
    packed = needs_packing(g, s, problem, target)  # by every chunk of rows anew
    tiled, rows_again = bool(dot.tiled), SPLITTING_READS * g.m if dot.parts > 1 else g.m
    again = PACKING_READS * g.n if packed or tiled else g.n
    row_chunks, panel_chunks = min(enough, key=lambda pair: (pair[1] - 1) * rows_again + (pair[0] - 1) * again)
    near = 3 * g.m * g.k * dot.parts * dot.x.size // 2 if tiled else 2 * g.m * g.k * problem.acc.size
    least = 1 if packed or not in_cache else -(-near // target.l2_bytes)
    panel_chunks = _even(num_panels, panel_chunks) if tiled else panel_chunks
    prefetch = g.w_constant and g.reads[g.w_arg].num_bytes > LARGE_BYTES and not s.rows_outer
    return replace(s, row_chunks=min(row_tiles, max(row_chunks, least)), panel_chunks=panel_chunks, prefetch=prefetch)


def _even(panels: int, chunks: int) -> int:
    """The most chunks of the same number of panels, an even number of chunks if there is one at all; else ``chunks``."""
    return next((count for count in range(chunks, 1, -1) if count % 2 == 0 and panels % count == 0), chunks)


def _wanted_chunks(problem: Problem, dot: Dot, target: CpuTarget, chunks: int) -> int:
    if target.num_threads == 1:
        return 1
    if not dot.tiled:
        return min(chunks * target.num_threads, max(1, problem.flops // MIN_CHUNK_FLOPS))
    work = max(problem.flops // (MIN_CHUNK_FLOPS * TILED_SPEED), (problem.a.num_bytes + problem.b.num_bytes) // MIN_CHUNK_BYTES)
    return min(chunks * target.num_threads, max(1, work))


def _variants(problem: Problem, best: Schedule, target: CpuTarget) -> Iterator[Schedule]:
    """Other ways to do what ``best`` does: staging, loop order, prefetching."""
    yield replace(best, staged=not best.staged)
    yield replace(best, rows_outer=True, prefetch=False)
    yield replace(best, prefetch=not best.prefetch)
