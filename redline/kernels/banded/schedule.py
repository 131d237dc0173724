"""A convolution and what reads its result, a band at a time: the ways to compute them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redline.kernels.banded.cut import ROWS, Cut
from redline.kernels.banded.problem import READERS, Problem, cuts_of, held_as
from redline.kernels.conv.candidates import of_even_rows
from redline.kernels.conv.schedule import Direct
from redline.kernels.conv.schedule import is_legal as is_legal_convolution
from redline.kernels.problem import CpuTarget, Operand

SHARES = (0.15, 0.3)  # of the second-level cache, for the rows that are held
MAKERS, WAYS = 2, 3  # tiles of the maker, and schedules of the readers
CHUNKS_PER_THREAD = 4


@dataclass(frozen=True)
class Schedule:
    """The image is cut into ``parts``, each of which is walked in bands of ``rows`` rows of the maker's.

    ``maker``: how these are made; ``readers``: a schedule of each reader, cut to a band.
    """

    maker: Direct
    rows: int
    readers: tuple[Any, ...]
    parts: int = 1


def held(problem: Problem) -> Operand:
    return held_as(problem.maker, problem.windows)


def above(problem: Problem, height: int) -> int:
    """Rows above a band that its readers need, whole tiles of ``height``."""
    return -(-max(seen.before for seen in problem.windows) // height) * height


def held_rows(problem: Problem, rows: int, height: int) -> int:
    return above(problem, height) + rows


def cuts(problem: Problem, rows: int) -> list[Cut]:
    """The readers for a band of ``rows``."""
    found = cuts_of(problem.maker, problem.readers, held(problem), rows)
    assert found is not None, "known since the problem was made"
    return found


def alone(target: CpuTarget) -> CpuTarget:
    """For kernels that are called within a chunk."""
    return replace(target, num_threads=1)


def in_bands(problem: Problem, s: Schedule) -> Direct:
    """The maker's schedule, with room for the rows of a band where it copies what they read."""
    return replace(s.maker, bands=problem.maker.out.shape[ROWS] // s.rows, panel_chunks=1)


def is_legal(problem: Problem, s: Schedule, target: CpuTarget) -> bool:
    """The one statement of what render accepts, apart from the readers' schedules, which their own families know."""
    height = problem.maker.out.shape[ROWS]
    return (
        1 <= s.rows <= height
        and height % s.rows == 0
        and s.rows % problem.unit == s.rows % s.maker.height == 0
        and above(problem, s.maker.height) <= s.rows
        and 1 <= s.parts <= height // s.rows
        and is_legal_convolution(problem.maker, in_bands(problem, s), target)
        and len(s.readers) == len(problem.readers)
    )


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """The legal candidates, the best guess first."""
    tiles = of_even_rows(problem.maker, target)
    found: dict[Schedule, None] = {}
    for rows in _bands(problem, target):
        makers = [tile for tile in tiles if rows % tile.height == 0 and above(problem, tile.height) <= rows][:MAKERS]
        for way in ways(problem, rows, target):
            for maker in makers:
                for parts in _parts(problem, rows, target):
                    found[Schedule(maker, rows, way, parts)] = None
    return [s for s in found if is_legal(problem, s, target)]


def ways(problem: Problem, rows: int, target: CpuTarget) -> Iterator[tuple[Any, ...]]:
    """The readers' best schedules, then their second best, and so on."""
    options = [
        _by_kind(READERS[reader.family].schedules(small.problem, alone(target)))
        for reader, small in zip(problem.readers, cuts(problem, rows), strict=True)
    ]
    for rank in range(min(WAYS, max(map(len, options)))):
        yield tuple(found[min(rank, len(found) - 1)] for found in options)


def _by_kind(found: Sequence[Any]) -> list[Any]:
    """The best of each kind of schedule first: with few rows the order of the kinds is another than for whole images.

    Direct convolutions before minimal filtering, which needs many blocks to share its weights.
    """
    kinds: dict[str, list[Any]] = {}
    for schedule in found:
        kinds.setdefault(type(schedule).__name__, []).append(schedule)
    ranked = [(rank, name != "Direct", schedule) for name, each in kinds.items() for rank, schedule in enumerate(each)]
    return [schedule for _, _, schedule in sorted(ranked, key=lambda entry: entry[:2])]


def _bands(problem: Problem, target: CpuTarget) -> list[int]:
    """The largest bands that leave room in the second-level cache, and smaller ones; the smallest, if none does."""
    lies, height = held(problem), problem.maker.out.shape[ROWS]
    row = lies.strides[ROWS] * lies.dtype.size
    unit = problem.unit * (2 if height % (2 * problem.unit) == 0 else 1)  # for tiles of two rows
    possible = [n for n in range(unit, height + 1, unit) if height % n == 0 and n >= above(problem, 1)]
    fitting = [[n for n in possible if held_rows(problem, n, 1) * row <= share * target.l2_bytes] for share in SHARES]
    return list(dict.fromkeys(found[-1] for found in fitting if found)) or possible[:1]


def _parts(problem: Problem, rows: int, target: CpuTarget) -> list[int]:
    """As many as threads, which make the fewest rows twice, and more, which wait less for each other."""
    most, batch = problem.maker.out.shape[ROWS] // rows, problem.maker.out.shape[0]
    wanted = [-(-target.num_threads * each // batch) for each in (CHUNKS_PER_THREAD, 1)]
    return list(dict.fromkeys(min(most, count) for count in wanted))
