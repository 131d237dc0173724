"""Schedules of tiled matrix products on GPUs: what may vary, what is legal, and what is worth trying first.

A product has rows, columns and a depth along which it sums; a schedule says how they are cut into tiles and who sums what.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from redline.base.extents import is_open, nominal
from redline.kernels.gpu import COUNTER_BYTES, GpuTarget, next_power

TILES = (
    (128, 256, 8), (256, 128, 8), (128, 128, 8), (128, 128, 4), (128, 64, 4), (64, 128, 4), (64, 64, 4), (256, 64, 8),
    (64, 256, 4), (128, 32, 4), (64, 32, 4), (32, 64, 4), (32, 32, 4), (16, 64, 4), (16, 128, 4), (16, 32, 2), (128, 16, 4),
    (64, 16, 4), (256, 32, 8),
)  # fmt: skip
TALL = ((192, 256, 8), (192, 128, 4))  # three parts of 64 rows each: what no power of two has room for in the registers
PART_ROWS = 64
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
GROUP_ROWS = 8
MAX_COUNTERS = COUNTER_BYTES // 4
DEPTH_UNIT = 64  # packed operands have a multiple of this along k, whatever the schedule


@dataclass(frozen=True)
class Schedule:
    """Tiles of ``block_m`` x ``block_n`` summed ``block_k`` at a time, by ``num_warps`` with loads ``num_stages`` ahead.

    ``split``: programs that share one sum; with ``tail``, only those of the last ``tail`` tiles, which would not fill the
    GPU. ``copy_engine``: tiles are loaded by tensor maps. ``walkers``: so many programs go from tile to tile, the loads of
    the next begun during the epilogue. ``turned``: the tensor cores see columns as rows, and read less shared memory where
    the columns are few. A ``block_m`` that is no power of two is summed in parts of 64 rows, which share their tile of b.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int = 4
    num_stages: int = 3
    split: int = 1
    copy_engine: bool = False
    tail: int = 0
    walkers: int = 0
    turned: bool = False

    @property
    def num_parts(self) -> int:
        return 1 if next_power(self.block_m) == self.block_m else self.block_m // PART_ROWS

    @property
    def part_rows(self) -> int:
        return self.block_m // self.num_parts


@dataclass(frozen=True)
class Size:
    """What the choice of tiles depends on."""

    rows: int
    columns: int
    depth: int
    batch: int
    element_bytes: int
    depth_unit: int = 0  # block_k must divide this; 0: any

    @property
    def is_open(self) -> bool:
        return any(map(is_open, (self.rows, self.columns, self.depth, self.batch)))

    @property
    def tuned(self) -> "Size":
        """The size at the tuned shape."""
        rows, columns, depth, batch = map(nominal, (self.rows, self.columns, self.depth, self.batch))
        return replace(self, rows=rows, columns=columns, depth=depth, batch=batch)

    def steps(self, s: Schedule) -> int:
        return self.steps_of(s.block_k)

    def steps_of(self, block_k: int) -> int:
        return -(-self.depth // block_k)

    def tiles(self, s: Schedule) -> int:
        return -(-self.rows // s.block_m) * -(-self.columns // s.block_n) * self.batch


def shared_bytes(size: Size, s: Schedule) -> int:
    loads = s.num_stages * s.block_k * (s.block_m + s.block_n) * size.element_bytes
    if s.walkers:
        return loads + s.block_m * s.block_n + 1024
    return max(loads, s.block_m * s.block_n * 4 if not s.copy_engine else 0) + 1024


def is_legal(size: Size, s: Schedule, target: GpuTarget) -> bool:
    registers = s.block_m * s.block_n // (32 * s.num_warps)
    whole = s.block_k <= DEPTH_UNIT or size.depth % s.block_k == 0
    return whole and (
        shared_bytes(size, s) <= target.shared_bytes
        and registers <= (128 if s.num_parts == 1 else 192)
        and (s.split == 1 or (s.split <= size.steps(s) and shared_tiles(size, s) <= MAX_COUNTERS))
        and (size.depth_unit == 0 or size.depth_unit % s.block_k == 0 or s.block_k <= next_power(size.depth_unit))
    )


def shared_tiles(size: Size, s: Schedule) -> int:
    """The tiles whose sums are split."""
    return 0 if s.split == 1 else s.tail or size.tiles(s)


def candidates(size: Size, target: GpuTarget, copy_engine: bool = False) -> list[Schedule]:
    """The legal schedules, the cheapest by ``cost`` first, but those much like a cheaper one later.

    Of open sizes those for the tuned shape, without what is cut by the number of tiles.
    """
    if size.is_open:
        return [s for s in candidates(size.tuned, target, copy_engine) if not s.tail]
    found = [s for s in _all(size, target, copy_engine) if is_legal(size, s, target)]
    costs = {s: cost(size, s, target) for s in found}
    alike: dict[tuple[object, ...], int] = {}
    ranks = {}
    for s in sorted(costs, key=lambda s: costs[s]):
        rank = costs[s]
        shape, form = (s.block_m, s.block_n), (s.copy_engine, s.walkers > 0, s.turned)
        way = (s.split, s.tail, form)
        for weight, key in ((1.01, form), (1.03, shape), (1.05, (shape, way)), (1.15, (shape, way, s.block_k))):
            rank *= weight ** alike.get(key, 0)
            alike[key] = alike.get(key, 0) + 1
        ranks[s] = rank
    return sorted(ranks, key=lambda s: ranks[s])


def _all(size: Size, target: GpuTarget, copy_engine: bool) -> Iterator[Schedule]:
    depths: tuple[int, ...] = (32, 64) if size.element_bytes == 4 else (32, 64, 128)
    least = 32 if size.element_bytes == 1 else 16
    depths = tuple(d for d in depths if d <= max(least, next_power(size.depth)) and _fits(d, size.depth_unit)) or (least,)
    for m, n, warps in TILES:
        if m > 2 * next_power(max(size.rows, 16)) or n > 2 * next_power(max(size.columns, 16)):
            continue
        for k in depths:
            for stages in (3, 4, 5) if target.arch >= 90 else (2, 3, 4):
                for engine in (False, True) if copy_engine and m >= 64 else (False,):
                    for split in SPLITS:
                        yield Schedule(m, n, k, warps, stages, split, engine)
                    plain = Schedule(m, n, k, warps, stages, 1, engine)
                    yield from _with_tail(size, plain, target)
                    if engine and size.batch == 1 and size.element_bytes <= 2:
                        yield from _walking(size, plain, target)
                        yield from _turned(size, plain, target)
    if copy_engine and size.batch == 1 and size.element_bytes <= 2:
        yield from _tall(size, depths)


def _tall(size: Size, depths: tuple[int, ...]) -> Iterator[Schedule]:
    """Tiles of more rows, which fetch less for each product. Long steps and walkers never won with them."""
    for m, n, warps in TALL:
        if m > size.rows or n > size.columns:
            continue
        for k in depths:
            if k * size.element_bytes <= 128:
                for stages in (3, 4, 5) if n > 128 else (2, 3, 4, 5):
                    yield Schedule(m, n, k, warps, stages, 1, True)


def _with_tail(size: Size, s: Schedule, target: GpuTarget) -> Iterator[Schedule]:
    """Whole rounds of tiles, then the rest of them cut so that they make one more, shorter round."""
    tiles = size.tiles(s)
    for resident in {1, _resident(size, s, target)}:
        slots = target.processors * resident
        tail = tiles % slots
        if size.batch == 1 and tail and slots < tiles <= 8 * slots and slots // tail > 1:
            yield replace(s, split=min(slots // tail, 8), tail=tail)


def _walking(size: Size, s: Schedule, target: GpuTarget) -> Iterator[Schedule]:
    """Programs that stay, where there are more tiles than fit at a time."""
    tiles = size.tiles(s)
    walker = replace(s, walkers=target.processors)
    resident = _resident(size, walker, target)
    if tiles > target.processors * resident:
        yield replace(s, walkers=target.processors * resident)


def _turned(size: Size, s: Schedule, target: GpuTarget) -> Iterator[Schedule]:
    """Where the columns are few."""
    if s.block_n <= 128 and s.block_n >= 64 and s.block_m >= 128:
        turned = replace(s, turned=True)
        yield turned
        resident = _resident(size, replace(turned, walkers=1), target)
        if size.tiles(s) > target.processors * resident:
            yield replace(turned, walkers=target.processors * resident)


def _fits(block: int, unit: int) -> bool:
    return unit == 0 or unit % block == 0


def cost(size: Size, s: Schedule, target: GpuTarget) -> float:
    """Cycles, roughly: the tensor cores' work, the tiles' bytes, the latency of every step, and what begins and ends a tile."""
    tiles, parts, steps = size.tiles(s), s.split, size.steps(s)
    resident = _resident(size, s, target)
    narrow = 1.0 if s.block_m * s.block_n >= 128 * 128 else 1.3 if s.block_m * s.block_n >= 128 * 64 else 1.8
    if s.turned:
        narrow = 1.05
    rate = 4096 if target.arch >= 90 else 2048
    math = s.block_m * s.block_n * s.block_k * 2 / (rate * 2 / size.element_bytes) * narrow
    load = (s.block_m + s.block_n) * s.block_k * size.element_bytes / 44
    if not s.copy_engine:
        load *= 1.15
    each = max(math, load) + 50
    alone_at_first = s.copy_engine and tiles * parts <= 4 * target.processors  # nothing is prefetched
    begin, end = 1400 + 600 * s.copy_engine + 900 * alone_at_first, s.block_m * s.block_n / 24
    if s.tail:
        on_one = -(-(tiles - s.tail) // target.processors)
        length = on_one * steps + -(-s.tail * parts // target.processors) * -(-steps // parts)
        on_one += -(-s.tail * parts // target.processors)
    else:
        on_one = -(-tiles * parts // target.processors)  # tiles of the busiest processor
        length = on_one * -(-steps // parts)
    if parts > 1:
        end += 1500 + parts * (300 + s.block_m * s.block_n / 16) + s.block_m * s.block_n / 16
    together = min(resident, on_one)
    rounds = 0 if s.walkers else -(-on_one // together)
    alone = length / together * max(each, 700 / (s.num_stages - 1))
    work = begin + max(length * each + rounds * 300, alone) + end * (1 + 0.5 * (on_one - 1) / together)
    return work * (1 + 0.01 * (5 - s.num_stages if rounds == 1 or s.walkers else s.num_stages - 3))


def _resident(size: Size, s: Schedule, target: GpuTarget) -> int:
    """Programs that a processor holds at a time."""
    return max(1, min(target.shared_bytes // shared_bytes(size, s), 2048 // (32 * s.num_warps), _registers(s)))


def _registers(s: Schedule) -> int:
    each = min(255, s.block_m * s.block_n // (32 * s.num_warps) + 56)
    return max(1, 65536 // (each * 32 * s.num_warps))
