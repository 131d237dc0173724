"""The inner product on the matrix unit of an x86 processor (AMX), as C text.

    sums[m][n] += x[m][k...] * w[k...][n]        for m < 16, n < 16 and up to 16 groups along k, by one instruction

Eight tile registers hold up to 16 rows of 64 bytes each. A register tile of several *bands* of rows and several vectors of
columns keeps its sums in some, a tile of x for each band in others, and reads the tiles of w through the rest. Rows of x are
read where they lie, at a constant distance; w is packed as for the instructions that multiply a vector (kernels/tile.py): each
panel holds its groups row by row. The sums go through memory into the epilogue.

The shapes of all tiles are set once for a chunk, so all its register tiles are of one height. A shorter one begins some rows
earlier, at rows that belong to the one before it, and throws their sums away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from redline.kernels.ctext import block
from redline.kernels.dot import Dot, groups_at_once
from redline.kernels.tile import Ahead, Loop, Split

ROWS = 16  # of a tile
LANES = 16  # columns of a tile of sums
REGISTERS = 8
WORD = 4  # bytes of a group, and of a sum
MAX_BANDS, MAX_VECTORS = 3, 6
CONFIG_BYTES, FIRST_WIDTH, FIRST_HEIGHT = 64, 16, 48  # of the operand of ldtilecfg
SWITCH_CYCLES = 8  # to take another tile of w, the mean of a processor that has its unit for itself (0) and one that has not
LOAD_CYCLES, FAR_CYCLES = 0.1, 0.4  # beside products, to read a row of a tile from the first and the second level of the cache
SPILL_CYCLES, EPILOGUE_CYCLES = 2, 4  # of one vector of sums
HALF_LINE_CYCLES = 6  # of a row of results that ends within a line of the cache, as one vector of bfloat16 does
BEGIN_CYCLES = 60
LATENCY = 52  # cycles of a product of tiles
MIN_PART = 2  # rows of an epilogue between two parts of the products of a tile


def fits(bands: int, vectors: int) -> bool:
    """Whether the sums, the tiles of x and one tile of w have registers."""
    return bands * vectors + bands + 1 <= REGISTERS


def bands_of(rows: int) -> Split:
    """``rows`` in tiles of nearly the same height."""
    return Split.of_at_most(rows, ROWS)


@dataclass(frozen=True)
class Band:
    """Up to 16 rows of x from element ``start`` on, whose sums go to row ``place`` and on."""

    start: int | str
    place: int | str


@dataclass(frozen=True)
class Tiles:
    """The registers of tiles of ``heights`` rows (a C text where known at run time only) times at most ``vectors``.

    They sum ``groups`` at a time.
    """

    heights: tuple[int | str, ...]
    vectors: int
    groups: int
    dot: Dot

    def sum(self, band: int, vector: int) -> int:
        """The register of the sums of a band and a vector of columns."""
        return band * self.vectors + vector

    def x(self, band: int) -> int:
        """The register of a tile of x."""
        return len(self.heights) * self.vectors + band

    def w(self, vector: int) -> int:
        """The register through which the tiles of w for ``vector`` go."""
        first = len(self.heights) * (self.vectors + 1)
        return first + vector % (REGISTERS - first)

    @cached_property
    def begin(self) -> list[str]:
        """C: sets the shapes of the registers; what a chunk begins with."""
        config: list[int | str] = [0] * CONFIG_BYTES
        config[0] = 1
        for register, (rows, columns) in self._shapes().items():
            config[FIRST_HEIGHT + register] = rows
            config[FIRST_WIDTH + 2 * register] = columns
        storage = "static const " if all(isinstance(height, int) for height in self.heights) else ""
        text = ", ".join(map(str, config))
        return [
            f"{storage}uint8_t tile_shapes[{CONFIG_BYTES}] __attribute__((aligned(64))) = {{{text}}};",
            '__asm__ volatile("ldtilecfg %0" : : "m"(tile_shapes));',
        ]

    def _shapes(self) -> dict[int, tuple[int | str, int]]:
        """(rows, bytes of a row) of each register."""
        found: dict[int, tuple[int | str, int]] = {}
        for band, height in enumerate(self.heights):
            found[self.x(band)] = (height, self.groups * WORD)
            found.update({self.sum(band, v): (height, LANES * WORD) for v in range(self.vectors)})
        return found | {self.w(v): (self.groups, LANES * WORD) for v in range(self.vectors)}


END = '__asm__ volatile("tilerelease");'  # C: what a chunk ends with; a thread with tiles in use is dear to switch


def split(loops: Sequence[Loop], dot: Dot) -> tuple[list[Loop], Loop]:
    """The outer loops, and the innermost one in steps of one instruction: its steps are ``group * groups`` of x long."""
    *outer, inner = loops
    if inner.x_step != dot.group:  # nothing lies side by side
        outer, inner = [*loops], Loop(1, dot.group, 0)
    assert isinstance(inner.extent, int)
    groups = groups_at_once(inner.extent)
    assert inner.extent % groups == 0, f"{inner.extent} groups have no steps of {groups}"
    return [loop for loop in outer if loop.extent != 1], Loop(
        inner.extent // groups, inner.x_step * groups, inner.w_step * groups
    )


def side_by_side(heights: Sequence[int], row_step: int) -> list[Band]:
    """Bands of which each begins where the one before ends."""
    return [Band(first * row_step, first) for first in (0, *accumulate(heights[:-1]))]


def sums(
    tiles: Tiles, vectors: int, bands: Sequence[Band], row_step: int, most_rows: int, loops: Sequence[Loop],
    ahead: Ahead | None = None, skipped: int | str = 0, x_part: int = 0, w_part: int = 0,
) -> list[str]:  # fmt: skip
    """C: ``sums[rows][columns]``, at most ``most_rows``, from the pointers ``x`` and ``panel``, which is ``vectors`` wide.

    Rows of x lie ``row_step`` elements apart. ``skipped`` rows in front of each band are computed too; where a band's place is
    taken by sums of the band before, those win. ``ahead``: what every step asks for, from the pointer ``ahead`` on. The next
    part of an operand that is split begins ``x_part`` or ``w_part`` elements behind this one.
    """
    dot, width = tiles.dot, vectors * LANES
    outer, inner = split(loops, dot)
    steps = [*outer, inner] if inner.extent != 1 else outer
    at_x = "".join(f" + {f'{s.table}[k{i}]' if s.table else f'k{i} * {s.x_step}'}" for i, s in enumerate(steps))
    at_w = "".join(f" + k{i} * {s.w_step}" for i, s in enumerate(steps))
    body = [*(ahead.ask if ahead else []), *_step(tiles, vectors, bands, row_step, x_part, w_part)]
    lines = [f"x -= {skipped} * {row_step};"] if skipped else []
    lines += [f"{dot.acc.c} all_sums[{most_rows}][{width}] __attribute__((aligned(64)));"]
    every = [(b, v) for b in range(len(bands)) for v in range(vectors)]
    lines += [zero(tiles.sum(b, v)) for b, v in every]
    head = " ".join(f"for (int64_t k{i} = 0; k{i} < {loop.extent}; ++k{i})" for i, loop in enumerate(steps))
    at = f"xk = (const char *)(x{at_x}), *const wk = (const char *)(panel{at_w})"
    lines += block(head, [f"const char *const {at};", *body])
    for b, v in reversed(every):
        lines.append(store(tiles.sum(b, v), f"&all_sums[{bands[b].place}][{v * LANES}]", width * WORD))
    return [*lines, f"{dot.acc.c} (*const sums)[{width}] = all_sums + {skipped};"]


def _load_band(register: int, start: int | str, part: int, row_step: int, size: int) -> str:
    """C: rows of elements of ``size`` bytes, from element ``start`` of the part that begins with element ``part`` on."""
    if isinstance(start, int):
        return load(register, "xk", (start + part) * size, row_step * size)
    return load(register, f"xk + {start} * {size}", part * size, row_step * size)


def interleaved(
    tiles: Tiles, vectors: int, row_step: int, steps: Loop, ahead: Ahead | None, between: Sequence[str], to: str,
    x_part: int, w_part: int,
) -> list[str]:  # fmt: skip
    """C: the sums of ``x`` and ``panel`` into ``to``, bands of rows one behind the other; parts as for ``sums``.

    ``between`` stands before every ``part`` of the steps, formatted with the number of parts.
    """
    dot, width = tiles.dot, vectors * LANES
    _, inner = split([steps], dot)
    assert isinstance(inner.extent, int)
    heights = [height for height in tiles.heights if isinstance(height, int)]
    bands = side_by_side(heights, row_step)
    size = max(1, inner.extent * MIN_PART // sum(heights))
    parts = -(-inner.extent // size)
    every = [(b, v) for b in range(len(bands)) for v in range(vectors)]
    lines = [zero(tiles.sum(b, v)) for b, v in every]
    places = f"(x + k * {inner.x_step}), *const wk = (const char *)(panel + k * {inner.w_step});"
    step = [f"const char *const xk = (const char *){places}", *(ahead.ask if ahead else [])]
    step += _step(tiles, vectors, bands, row_step, x_part, w_part)
    last = f"k < {inner.extent} && k < (part + 1) * {size}" if inner.extent % size else f"k < (part + 1) * {size}"
    part = [line.format(parts, parts) for line in between]
    part += block(f"for (int64_t k = part * {size}; {last}; ++k)", step)
    lines += block(f"for (int64_t part = 0; part < {parts}; ++part)", part)
    for b, v in every:
        lines.append(store(tiles.sum(b, v), f"&{to}[{bands[b].place} * {width} + {v * LANES}]", width * WORD))
    return lines


def _step(tiles: Tiles, vectors: int, bands: Sequence[Band], row_step: int, x_part: int, w_part: int) -> list[str]:
    """C: the products of one step, from ``xk`` and ``wk``. Each tile is loaded as late as it can be.

    All that is loaded before the first product waits in the queue of loads: 10 % less for tiles of two bands by two vectors.
    """
    dot, width = tiles.dot, vectors * LANES * WORD
    by_vector = vectors > REGISTERS - len(tiles.heights) * (tiles.vectors + 1)  # the tiles of w share registers
    pairs = [(b, v) for b in range(len(bands)) for v in range(vectors)]
    lines: list[str] = []
    held: dict[int, str] = {}  # what was loaded last, by register
    for x, w in dot.products:
        for b, v in sorted(pairs, key=lambda pair: pair[::-1] if by_vector else pair):
            loads = {
                tiles.x(b): _load_band(tiles.x(b), bands[b].start, x * x_part, row_step, dot.x.size),
                tiles.w(v): load(tiles.w(v), "wk", w * w_part * dot.w.size + v * LANES * WORD, width),
            }
            lines += [text for register, text in loads.items() if held.get(register) != text]
            held |= loads
            lines.append(multiply(dot, tiles.sum(b, v), tiles.x(b), tiles.w(v)))
    return lines


def zero(register: int) -> str:
    """C: no sums yet."""
    return f'__asm__ volatile("tilezero %tmm{register}");'


def load(register: int, base: str, offset: int, stride: int) -> str:
    """C: a tile from ``offset`` bytes behind ``base`` on, whose rows are ``stride`` bytes apart."""
    text = f"tileloadd {offset}(%0,%1,1), %%tmm{register}"
    return f'__asm__ volatile("{text}" : : "r"({base}), "r"((int64_t){stride}) : "memory");'


def store(register: int, address: str, stride: int) -> str:
    """C: a tile into memory, its rows ``stride`` bytes apart."""
    text = f"tilestored %%tmm{register}, (%0,%1,1)"
    return f'__asm__ volatile("{text}" : : "r"({address}), "r"((int64_t){stride}) : "memory");'


def multiply(dot: Dot, total: int, x: int, w: int) -> str:
    """C: the products of two tiles join a third."""
    return f'__asm__ volatile("{dot.tiled} %tmm{w}, %tmm{x}, %tmm{total}");'


def cost(rows: int, vectors: int, steps: int, near_bytes: int, times: int = 1) -> float:
    """Cycles of one register tile of ``steps`` groups: products, loads as far as they show, then the sums' way out.

    ``times``: how often the steps are gone through, as those of a split operand are.
    """
    at_once = groups_at_once(steps)
    bands = bands_of(rows).count
    near = (bands + vectors) * LANES * steps * WORD <= near_bytes
    loads = (rows + vectors * at_once) * (LOAD_CYCLES if near else FAR_CYCLES)
    height = (rows + bands * ROWS) / 2  # a shared unit takes as long for short tiles as for whole ones, a free one does not
    each = max(LATENCY, vectors * (height + SWITCH_CYCLES) + loads)
    out = vectors * (SPILL_CYCLES + EPILOGUE_CYCLES) + vectors % 2 * HALF_LINE_CYCLES
    return times * each * (steps / at_once) + BEGIN_CYCLES + rows * out


def shapes(rows: int, columns: int) -> list[tuple[int, int]]:
    """(rows, vectors) of the register tiles worth trying for so many rows and columns."""
    widest = -(-columns // LANES)
    found: dict[tuple[int, int], None] = {}
    for bands in range(1, MAX_BANDS + 1):
        height = Split.of_at_most(rows, bands * ROWS).size
        for vectors in range(1, min(MAX_VECTORS, widest) + 1):
            if fits(bands_of(height).count, vectors):
                found[height, vectors] = None
    return list(found)
