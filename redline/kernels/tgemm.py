"""Tiled matrix products on tensor cores, in Triton: what matmul and convolution share.

    out[r, c] = epilogue(sum over k of a[r, k] * b[k, c])        r below rows, c below columns, for each of ``batch`` products

A family describes how rows, columns and k map to its operands (``Gemm``); here is the tile loop around them: the order of
the tiles, the loop along k, sums split over several programs, and the epilogue.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from redline.base.dtypes import DType, bfloat16, float32, int8
from redline.base.extents import nominal
from redline.kernels import texpr, ttext
from redline.kernels.dot import SMALL, accumulator
from redline.kernels.expr import Expr
from redline.kernels.gemm_schedule import DEPTH_UNIT, GROUP_ROWS, Schedule, Size, shared_tiles
from redline.kernels.gpu import COUNTER_BYTES, GpuTarget
from redline.kernels.problem import Operand


@dataclass(frozen=True)
class Gemm:
    """Texts of a product. Rows are called ``rm`` [block_m], columns ``rn`` [block_n], the batch number ``batch``.

    ``before``: statements in front of the loop. ``step``: statements that make tiles ``a`` [block_m, block_k] and ``b``
    [block_k, block_n] in step ``s`` along k, ``multiply`` those that add their product to ``acc``. ``coordinates`` are those
    of the epilogue, over ``rm[:, None]`` and the like; the axes in ``row_axes`` and ``column_axes`` may leave their bounds.
    """

    size: Size
    before: Sequence[str]
    step: Sequence[str]
    multiply: Sequence[str]
    reads: Sequence[Operand]
    out: Operand
    epilogue: Expr
    coordinates: Sequence[str]
    row_axes: Sequence[int] = ()
    column_axes: Sequence[int] = ()
    acc: DType = float32
    params: Sequence[str] = field(default_factory=list)
    rows: texpr.Rows = texpr.NO_ROWS  # the coordinates in ``row_axes``, where they are those of rm
    constant: str = ""  # pointer to constants of ``constant_bytes``
    constant_bytes: int = 0


def padded(depth: int) -> int:
    """The length of k in packed operands."""
    return -(-depth // DEPTH_UNIT) * DEPTH_UNIT


def grid(size: Size, s: Schedule) -> tuple[int, int, int]:
    if s.walkers:
        return (s.walkers, 1, 1)
    tiles = -(-size.rows // s.block_m) * -(-size.columns // s.block_n)
    return (tiles + s.tail * (s.split - 1), 1, 1) if s.tail else (tiles, s.split, size.batch)


def workspace_bytes(size: Size, s: Schedule) -> int:
    """For partial sums, behind the counters."""
    return COUNTER_BYTES + shared_tiles(size, s) * s.split * s.block_m * s.block_n * 4 if s.split > 1 else 0


def render(g: Gemm, s: Schedule, target: GpuTarget) -> str:
    """The text of KERNEL."""
    names = [*g.params, *(["work"] if s.split > 1 else [])]
    if s.walkers:
        return ttext.module(names, [*ttext.wait(target, (), target.eager), *_walk(g, s)])
    body = [
        *_place(g.size, s),
        *ttext.wait(target, _prefetch(g, s, target), target.eager),
        *g.before,
        *_loop(g, s),
        *_end(g, s),
    ]
    return ttext.module(names, body)


def _walk(g: Gemm, s: Schedule) -> list[str]:
    """One program's tiles. Flattened loops let the loads run on into the next tile."""
    tile = [*_place(g.size, s)[1:], *g.before, *_loop(g, s), *_epilogues(g, s)]
    return [f"for pid in tl.range(tl.program_id(0), {g.size.tiles(s)}, {s.walkers}, flatten=True):", *_indented(tile)]


def _prefetch(g: Gemm, s: Schedule, target: GpuTarget) -> list[str]:
    """The constants on their way while the kernel in front still runs; worth it where they are read about once."""
    x, y, z = grid(g.size, s)
    programs = nominal(x * y * z)  # where others come there is less to gain, or nothing left to ask for
    if not g.constant or s.copy_engine or programs > 4 * target.processors:
        return []
    program = "tl.program_id(0)"
    if y != 1:
        program += f" + {x} * tl.program_id(1)"
    if z != 1:
        program += f" + {x * y} * tl.program_id(2)"
    return ttext.prefetch(g.constant, g.constant_bytes, programs, program, s.num_warps)


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
    if s.num_parts == 1:
        lines.append(f"rm = pm * {s.block_m} + tl.arange(0, {s.block_m})")
    lines.append(f"rn = pn * {s.block_n} + tl.arange(0, {s.block_n})")
    if size.batch != 1:
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
    shape = (s.block_n, s.block_m) if s.turned else (s.block_m, s.block_n)
    if s.num_parts > 1:
        lines += [f"acc{part} = tl.zeros(({s.part_rows}, {s.block_n}), {kind})" for part in range(s.num_parts)]
        each = [_of_part(line, part) for part in range(s.num_parts) for line in g.multiply]
        return [*lines, f"for s in range({first}, {last}):", *_indented([*g.step, *each])]
    lines.append(f"acc = tl.zeros({shape}, {kind})")
    lines.append(f"for s in range({first}, {last}):")
    lines += _indented([*g.step, *g.multiply])
    return [*lines, "acc = tl.trans(acc)"] if s.turned else lines


def rows_loaded(s: Schedule) -> list[str]:
    """Statements that load tile ``a``, or those of the parts, from rows that follow each other, by the copy engine."""
    at = f"pm * {s.block_m}"
    if s.num_parts == 1:
        return [f"a = arg0.load([{at}, s * {s.block_k}])"]
    return [f"a{part} = arg0.load([{at} + {part * s.part_rows}, s * {s.block_k}])" for part in range(s.num_parts)]


def _of_part(line: str, part: int) -> str:
    """A statement over ``a`` and ``acc`` as one over those of a part."""
    return re.sub(r"\b(a|acc)\b", rf"\g<1>{part}", line)


def multiply(a: Operand, b: Operand, s: Schedule, target: GpuTarget) -> list[str]:
    """The statements that add the product of tiles ``a`` and ``b``. A constant b went through ``rounded`` already."""
    if a.dtype in SMALL:
        return _multiply_integers(a.dtype, b.dtype, s.turned)
    text = _multiply_floats(accumulator(a.dtype), a.dtype, target, b.constant)
    return [text if not s.turned else text.replace("tl.dot(a, b,", "tl.dot(tl.trans(b), tl.trans(a),")]


def _multiply_integers(a: DType, b: DType, turned: bool) -> list[str]:
    """Tensor cores take int8; a uint8 is 128 times its highest bit and the rest, which are."""
    lines = []
    for left, left_unit in _signed_parts("a", a):
        for right, right_unit in _signed_parts("b", b):
            pair = f"tl.trans({right}), tl.trans({left})" if turned else f"{left}, {right}"
            unit = left_unit * right_unit
            more = f"tl.dot({pair}, out_dtype=tl.int32) * {unit}"
            lines.append(f"acc = tl.dot({pair}, acc, out_dtype=tl.int32)" if unit == 1 else f"acc += {more}")
    return lines


def _signed_parts(name: str, dtype: DType) -> list[tuple[str, int]]:
    if dtype == int8:
        return [(name, 1)]
    return [(f"({name} & 127).to(tl.int8)", 1), (f"({name} >> 7).to(tl.int8)", 128)]


def _multiply_floats(acc: DType, element: DType, target: GpuTarget, packed: bool) -> str:
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
        return _epilogues(g, s)
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


def _epilogues(g: Gemm, s: Schedule) -> list[str]:
    """The epilogue of a tile, part by part."""
    if s.num_parts == 1:
        return _epilogue(g, s)
    lines = []
    for part in range(s.num_parts):
        rows = f"rm = pm * {s.block_m} + {part * s.part_rows} + tl.arange(0, {s.part_rows})"
        lines += [rows, f"acc = acc{part}", *_epilogue(g, s)]
    return lines


def _epilogue(g: Gemm, s: Schedule) -> list[str]:
    guards: dict[int, str] = {}
    if g.size.rows % s.block_m != 0:
        guards.update(dict.fromkeys(g.row_axes, f"(rm[:, None] < {g.size.rows})"))
    if g.size.columns % s.block_n != 0:
        guards.update(dict.fromkeys(g.column_axes, f"(rn[None, :] < {g.size.columns})"))
    exact = g.out.dtype == float32 and not (g.reads and g.reads[0].dtype.size == 2)
    names = [f"i{axis}" for axis in range(len(g.coordinates))]
    lines = [f"{name} = {text}" for name, text in zip(names, g.coordinates, strict=True)]
    renderer = texpr.Renderer(g.reads, names, g.out.shape, ["acc"], guards, exact=exact, rows=g.rows)
    statements, value = renderer.render_stored(g.epilogue, g.out.dtype)
    conditions = list(dict.fromkeys(guards.values()))
    whole = "(out0 + rm[:, None] * 0 + rn[None, :] * 0)" if 1 in (g.size.rows, g.size.columns) else "out0"
    return [*lines, *statements, texpr.store(whole, g.out, names, value, conditions, g.rows)]


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
