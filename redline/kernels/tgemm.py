"""Tiled matrix products on tensor cores, in Triton: what matmul and convolution share.

    out[r, c] = epilogue(sum over k of a[r, k] * b[k, c])        r below rows, c below columns, for each of ``batch`` products

A family describes how rows, columns and k map to its operands (``Gemm``); here is the tile loop around them: the order of
the tiles, the loop along k, sums split over several programs, and the epilogue.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from redline.base.dtypes import DType, bfloat16, float32
from redline.kernels import texpr
from redline.kernels.expr import Expr
from redline.kernels.gpu import COUNTER_BYTES, GpuTarget, next_power
from redline.kernels.problem import Operand

TILES = (
    (128, 256, 8), (256, 128, 8), (128, 128, 8), (128, 128, 4), (128, 64, 4), (64, 128, 4), (64, 64, 4), (256, 64, 8),
    (64, 256, 4), (128, 32, 4), (64, 32, 4), (32, 64, 4), (32, 32, 4), (16, 64, 4), (16, 128, 4), (16, 32, 2), (128, 16, 4),
    (64, 16, 4), (256, 32, 8),
)  # fmt: skip
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
GROUP_ROWS = 8
MAX_COUNTERS = COUNTER_BYTES // 4
DEPTH_UNIT = 64  # packed operands have a multiple of this along k, whatever the schedule


@dataclass(frozen=True)
class Schedule:
    """Tiles of ``block_m`` x ``block_n`` summed ``block_k`` at a time, by ``num_warps`` with loads ``num_stages`` ahead.

    ``split``: programs that share one sum; with ``tail``, only those of the last ``tail`` tiles, which would not fill the
    GPU. ``copy_engine``: tiles are loaded by tensor maps.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int = 4
    num_stages: int = 3
    split: int = 1
    copy_engine: bool = False
    tail: int = 0


@dataclass(frozen=True)
class Size:
    """What the choice of tiles depends on."""

    rows: int
    columns: int
    depth: int
    batch: int
    element_bytes: int
    depth_unit: int = 0  # block_k must divide this; 0: any

    def steps(self, s: Schedule) -> int:
        return -(-self.depth // s.block_k)

    def tiles(self, s: Schedule) -> int:
        return -(-self.rows // s.block_m) * -(-self.columns // s.block_n) * self.batch


def shared_bytes(size: Size, s: Schedule) -> int:
    loads = s.num_stages * s.block_k * (s.block_m + s.block_n) * size.element_bytes
    return max(loads, s.block_m * s.block_n * 4 if not s.copy_engine else 0) + 1024


def is_legal(size: Size, s: Schedule, target: GpuTarget) -> bool:
    registers = s.block_m * s.block_n // (32 * s.num_warps)
    whole = s.block_k <= DEPTH_UNIT or size.depth % s.block_k == 0
    return whole and (
        shared_bytes(size, s) <= target.shared_bytes
        and registers <= 128
        and (s.split == 1 or (s.split <= size.steps(s) and shared_tiles(size, s) <= MAX_COUNTERS))
        and (size.depth_unit == 0 or size.depth_unit % s.block_k == 0 or s.block_k <= next_power(size.depth_unit))
    )


def shared_tiles(size: Size, s: Schedule) -> int:
    """The tiles whose sums are split."""
    return 0 if s.split == 1 else s.tail or size.tiles(s)


def candidates(size: Size, target: GpuTarget, copy_engine: bool = False) -> list[Schedule]:
    """The legal schedules, the cheapest by ``cost`` first, but those much like a cheaper one later."""
    found = [s for s in _all(size, target, copy_engine) if is_legal(size, s, target)]
    costs = {s: cost(size, s, target) for s in found}
    alike: dict[tuple[object, ...], int] = {}
    ranks = {}
    for s in sorted(costs, key=lambda s: costs[s]):
        rank = costs[s]
        shape, way = (s.block_m, s.block_n), (s.split, s.tail, s.copy_engine)
        for weight, key in ((1.03, shape), (1.05, (shape, way)), (1.15, (shape, way, s.block_k))):
            rank *= weight ** alike.get(key, 0)
            alike[key] = alike.get(key, 0) + 1
        ranks[s] = rank
    return sorted(ranks, key=lambda s: ranks[s])


def _all(size: Size, target: GpuTarget, copy_engine: bool) -> Iterator[Schedule]:
    depths: tuple[int, ...] = (32, 64, 128) if size.element_bytes == 2 else (32, 64) if size.element_bytes == 4 else (64, 128)
    depths = tuple(d for d in depths if d <= max(16, next_power(size.depth)) and _fits(d, size.depth_unit)) or (16,)
    for m, n, warps in TILES:
        if m > 2 * next_power(max(size.rows, 16)) or n > 2 * next_power(max(size.columns, 16)):
            continue
        for k in depths:
            for stages in (3, 4, 5) if target.arch >= 90 else (2, 3, 4):
                for engine in (False, True) if copy_engine and m >= 64 else (False,):
                    for split in SPLITS:
                        yield Schedule(m, n, k, warps, stages, split, engine)
                    yield from _with_tail(size, Schedule(m, n, k, warps, stages, 1, engine), target)


def _with_tail(size: Size, s: Schedule, target: GpuTarget) -> Iterator[Schedule]:
    """Whole rounds of tiles, then the rest of them cut so that they make one more, shorter round."""
    tiles = size.tiles(s)
    for resident in {1, _resident(size, s, target)}:
        slots = target.processors * resident
        tail = tiles % slots
        if size.batch == 1 and tail and slots < tiles <= 8 * slots and slots // tail > 1:
            yield replace(s, split=min(slots // tail, 8), tail=tail)


def _fits(block: int, unit: int) -> bool:
    return unit == 0 or unit % block == 0


def cost(size: Size, s: Schedule, target: GpuTarget) -> float:
    """Cycles, roughly: the tensor cores' work, the tiles' bytes, the latency of every step, and what begins and ends a tile."""
    tiles, parts, steps = size.tiles(s), s.split, size.steps(s)
    resident = _resident(size, s, target)
    narrow = 1.0 if s.block_m * s.block_n >= 128 * 128 else 1.3 if s.block_m * s.block_n >= 128 * 64 else 1.8
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
    rounds = -(-on_one // together)
    alone = length / together * max(each, 700 / (s.num_stages - 1))
    work = begin + max(length * each + rounds * 300, alone) + end * (1 + 0.5 * (on_one - 1) / together)
    return work * (1 + 0.01 * (5 - s.num_stages if rounds == 1 else s.num_stages - 3))


def _resident(size: Size, s: Schedule, target: GpuTarget) -> int:
    """Programs that a processor holds at a time."""
    return max(1, min(target.shared_bytes // shared_bytes(size, s), 2048 // (32 * s.num_warps), _registers(s)))


def _registers(s: Schedule) -> int:
    each = min(255, s.block_m * s.block_n // (32 * s.num_warps) + 56)
    return max(1, 65536 // (each * 32 * s.num_warps))


@dataclass(frozen=True)
class Gemm:
    """Texts of a product. Rows are called ``rm`` [block_m], columns ``rn`` [block_n], the batch number ``batch``.

    ``before``: statements in front of the loop. ``step``: statements that make tiles ``a`` [block_m, block_k] and ``b``
    [block_k, block_n] in step ``s`` along k. ``coordinates`` are those of the epilogue, over ``rm[:, None]`` and the like;
    the axes in ``row_axes`` and ``column_axes`` may leave their bounds.
    """

    size: Size
    before: Sequence[str]
    step: Sequence[str]
    reads: Sequence[Operand]
    out: Operand
    epilogue: Expr
    coordinates: Sequence[str]
    row_axes: Sequence[int] = ()
    column_axes: Sequence[int] = ()
    acc: DType = float32
    params: Sequence[str] = field(default_factory=list)
    constant: str = ""  # pointer to constants of ``constant_bytes``
    constant_bytes: int = 0


def padded(depth: int) -> int:
    """The length of k in packed operands."""
    return -(-depth // DEPTH_UNIT) * DEPTH_UNIT


def grid(size: Size, s: Schedule) -> tuple[int, int, int]:
    tiles = -(-size.rows // s.block_m) * -(-size.columns // s.block_n)
    return (tiles + s.tail * (s.split - 1), 1, 1) if s.tail else (tiles, s.split, size.batch)


def workspace_bytes(size: Size, s: Schedule) -> int:
    """For partial sums, behind the counters."""
    return COUNTER_BYTES + shared_tiles(size, s) * s.split * s.block_m * s.block_n * 4 if s.split > 1 else 0


def render(g: Gemm, s: Schedule, target: GpuTarget) -> str:
    """The text of KERNEL."""
    names = [*g.params, *(["work"] if s.split > 1 else [])]
    body = [
        *_place(g.size, s),
        *texpr.wait(target, _prefetch(g, s, target), target.eager),
        *g.before,
        *_loop(g, s),
        *_end(g, s),
    ]
    return texpr.module(names, body)


def _prefetch(g: Gemm, s: Schedule, target: GpuTarget) -> list[str]:
    """The constants on their way while the kernel in front still runs; worth it where they are read about once."""
    x, y, z = grid(g.size, s)
    if not g.constant or s.copy_engine or x * y * z > 4 * target.processors:
        return []
    program = "tl.program_id(0)"
    if y > 1:
        program += f" + {x} * tl.program_id(1)"
    if z > 1:
        program += f" + {x * y} * tl.program_id(2)"
    return texpr.prefetch(g.constant, g.constant_bytes, x * y * z, program, s.num_warps)


def _place(size: Size, s: Schedule) -> list[str]:
    """Which tile: groups of rows of tiles are walked column by column, so that what is read stays in the cache."""
    tiles_m, tiles_n = -(-size.rows // s.block_m), -(-size.columns // s.block_n)
    lines = ["pid = tl.program_id(0)"]
    if s.tail:
        whole = tiles_m * tiles_n - s.tail
        lines += [
            f"late = pid >= {whole}", f"part = tl.where(late, (pid - {whole}) % {s.split}, 0)",
            f"pid = tl.where(late, {whole} + (pid - {whole}) // {s.split}, pid)",
        ]  # fmt: skip
    if tiles_n == 1:
        lines += ["pm = pid", "pn = 0"]
    elif tiles_m == 1:
        lines += ["pm = 0", "pn = pid"]
    else:
        width = GROUP_ROWS * tiles_n
        lines += [
            f"first = pid // {width} * {GROUP_ROWS}", f"high = tl.minimum({tiles_m} - first, {GROUP_ROWS})",
            f"pm = first + pid % {width} % high", f"pn = pid % {width} // high",
        ]  # fmt: skip
    lines.append(f"rm = pm * {s.block_m} + tl.arange(0, {s.block_m})")
    lines.append(f"rn = pn * {s.block_n} + tl.arange(0, {s.block_n})")
    if size.batch > 1:
        lines.append("batch = tl.program_id(2)")
    return lines


def _loop(g: Gemm, s: Schedule) -> list[str]:
    steps = g.size.steps(s)
    first, last = "0", str(steps)
    lines = []
    if s.tail:
        first, last = "low", "up"
        lines += [
            f"low = tl.where(late, part * {steps} // {s.split}, 0)",
            f"up = tl.where(late, (part + 1) * {steps} // {s.split}, {steps})",
        ]  # fmt: skip
    elif s.split > 1:
        lines += ["part = tl.program_id(1)", f"low = part * {steps} // {s.split}", f"up = (part + 1) * {steps} // {s.split}"]
        first, last = "low", "up"
    kind = texpr.TYPES[g.acc.name]
    lines.append(f"acc = tl.zeros(({s.block_m}, {s.block_n}), {kind})")
    lines.append(f"for s in range({first}, {last}):")
    return lines + _indented(g.step)


def multiply(acc: DType, element: DType, target: GpuTarget, packed: bool) -> str:
    """The statement that adds the product of tiles ``a`` and ``b``; ``packed``: b went through ``rounded`` already."""
    if target.plain and element == bfloat16:  # which Triton's interpreter cannot multiply
        return "acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc)"
    precision, a, b = "", "a", "b"
    if element == float32:
        precision = ', input_precision="tf32"' if target.tf32 else ', input_precision="ieee"'
    if rounds(element, target):
        a, b = "rl_tf32(a)", "b" if packed else "rl_tf32(b)"
    out = "" if acc == float32 else f", out_dtype={texpr.TYPES[acc.name]}"
    return f"acc = tl.dot({a}, {b}, acc{precision}{out})"


def rounds(element: DType, target: GpuTarget) -> bool:
    """Whether factors are rounded to 10 bits of mantissa."""
    return element == float32 and target.tf32 and not target.plain


def rounded(array: np.ndarray) -> np.ndarray:
    """float32 to the nearest of 10 bits of mantissa, halves away from zero."""
    bits = (array.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(array), bits.view(np.float32), array)


def _end(g: Gemm, s: Schedule) -> list[str]:
    if s.split == 1:
        return _epilogue(g, s)
    whole = g.size.tiles(s) - s.tail if s.tail else 0
    tile = f"pid - {whole}" if s.tail else "batch * tl.num_programs(0) + pid" if g.size.batch > 1 else "pid"
    block = s.block_m * s.block_n
    inside = f"tl.arange(0, {s.block_m})[:, None] * {s.block_n} + tl.arange(0, {s.block_n})[None, :]"
    kind = texpr.TYPES[g.acc.name]
    share = [
        f"tile = {tile}",
        f"parts = (work + {COUNTER_BYTES}).to(tl.pointer_type({kind})) + tile.to(tl.int64) * {block * s.split} + ({inside})",
        f"tl.store(parts + part * {block}, acc)",
        "tl.debug_barrier()",
        'count = tl.atomic_add(work.to(tl.pointer_type(tl.int32)) + tile, 1, sem="acq_rel")',
    ]
    several = "tl.static_range" if s.split <= 4 and block // (32 * s.num_warps) <= 32 else "range"
    total = [
        f"acc = tl.zeros(({s.block_m}, {s.block_n}), {kind})",
        f"for other in {several}(0, {s.split}):",
        f'    acc += tl.load(parts + other * {block}, cache_modifier=".cg")',
        "tl.store(work.to(tl.pointer_type(tl.int32)) + tile, 0)",
    ]
    if not s.tail:
        return [*share, f"if count == {s.split - 1}:", *_indented([*total, *_epilogue(g, s)])]
    mine = ["done = pid >= 0", "if late:", *_indented([*share, f"done = count == {s.split - 1}"])]
    return [*mine, *_indented(["if done:", *_indented(total)]), "if done:", *_indented(_epilogue(g, s))]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _epilogue(g: Gemm, s: Schedule) -> list[str]:
    guards: dict[int, str] = {}
    if g.size.rows % s.block_m:
        guards.update(dict.fromkeys(g.row_axes, f"(rm[:, None] < {g.size.rows})"))
    if g.size.columns % s.block_n:
        guards.update(dict.fromkeys(g.column_axes, f"(rn[None, :] < {g.size.columns})"))
    exact = g.out.dtype == float32 and not (g.reads and g.reads[0].dtype.size == 2)
    names = [f"i{axis}" for axis in range(len(g.coordinates))]
    lines = [f"{name} = {text}" for name, text in zip(names, g.coordinates, strict=True)]
    renderer = texpr.Renderer(g.reads, names, g.out.shape, ["acc"], guards, exact=exact)
    statements, value = renderer.render(g.epilogue)
    conditions = list(dict.fromkeys(guards.values()))
    whole = "(out0 + rm[:, None] * 0 + rn[None, :] * 0)" if 1 in (g.size.rows, g.size.columns) else "out0"
    return [*lines, *statements, texpr.store(whole, g.out, names, value, conditions)]


def row_coordinates(row: str, shape: Sequence[int]) -> list[str]:
    """The coordinates whose row-major position below ``shape`` is ``row``."""
    texts, below = [], 1
    for axis in reversed(range(len(shape))):
        text = row if below == 1 else f"{row} // {below}"
        texts.append("0" if shape[axis] == 1 else text if axis == 0 or _outermost(shape, axis) else f"({text}) % {shape[axis]}")
        below *= shape[axis]
    return texts[::-1]


def _outermost(shape: Sequence[int], axis: int) -> bool:
    return all(extent == 1 for extent in shape[:axis])
