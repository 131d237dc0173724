"""Convolutions in Triton as implicit products: rows are output positions, columns filters, k runs over taps and channels.

out[n, o, m] = epilogue(sum over taps k, channels c of x[n, o * stride + k * dilation - pad, c] * w[m, c, k])

Constant filters are packed as [group, filter, taps..., channel] with k padded to a multiple of 64. Where a step of k lies
within the channels of one tap, the tap is a scalar of the loop; else every k finds its own tap. A 1x1 convolution without
padding whose positions follow each other evenly may be loaded by the copy engine; so may any other of a large batch, whose
rows are then the images at one position, so that padding is what lies outside of the tensor map.
"""

from math import prod

import numpy as np

from redline.base.extents import is_open, may_be
from redline.kernels import texpr, tgemm
from redline.kernels.conv.problem import Problem
from redline.kernels.expr import loads
from redline.kernels.gemm_schedule import Schedule, Size, candidates
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget, TensorMap, map_type
from redline.kernels.matmul.triton import merged_stride
from redline.kernels.problem import Packing
from redline.kernels.tgemm import Gemm


def size_of(p: Problem) -> Size:
    channels, taps = p.w.shape[1], prod(p.w.shape[2:])
    unit = channels if taps > 1 and channels % (32 if p.x.dtype.size == 1 else 16) == 0 else 0
    return Size(prod(p.out.shape[:-1]), p.w.shape[0] // p.groups, taps * channels, p.groups, p.x.dtype.size, unit)


def is_pointwise(p: Problem) -> bool:
    return prod(p.w.shape[2:]) == 1 and not any(p.pads)


def row_stride(p: Problem) -> int | None:
    """The distance of neighbouring positions of x where tensor maps can describe both operands; None where they cannot."""
    if not is_pointwise(p) or p.groups > 1 or not p.w.constant or any(s != 1 for s in p.strides):
        return None
    if p.x.strides[-1] != 1 or any(load.operand < 2 for load in loads(p.epilogue)):
        return None
    stride = merged_stride(p.x.shape[:-1], p.x.strides[:-1])
    return stride if stride is not None and stride * p.x.dtype.size % 16 == 0 else None


def stacks(p: Problem) -> bool:
    """Whether a tile of the copy engine may be one channel block of many images at one position."""
    if p.groups > 1 or not p.w.constant or p.x.strides[-1] != 1 or p.pad_value or p.rank > 3:
        return False
    if is_open(p.x.shape[0]) or p.x.shape[0] < 64:
        return False
    if any(load.operand < 2 for load in loads(p.epilogue)) or row_stride(p) is not None:
        return False
    return p.w.shape[1] % 32 == 0 and all(s * p.x.dtype.size % 16 == 0 for s in p.x.strides[:-1])


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    p, stacked = problem, stacks(problem)
    found = candidates(size_of(p), target, (stacked or row_stride(p) is not None) and target.has_copy_engine)
    if not stacked:
        return found
    return [s for s in found if not s.copy_engine or not (p.x.shape[0] % s.block_m or p.w.shape[1] % s.block_k)]


def packing(p: Problem, target: GpuTarget) -> Packing:
    size, rounds = size_of(p), tgemm.rounds(p.w.dtype, target)
    depth = tgemm.padded(size.depth)

    def apply(w: np.ndarray) -> np.ndarray:
        flat = np.moveaxis(w, 1, -1).reshape(w.shape[0], size.depth)
        packed = np.ascontiguousarray(np.pad(flat, ((0, 0), (0, depth - size.depth))))
        return tgemm.rounded(packed) if rounds else packed

    return Packing(f"filters{depth}{'r' if rounds else ''}", apply)


def render(problem: Problem, schedule: Schedule, target: GpuTarget) -> GpuCode:
    p, s, size = problem, schedule, size_of(problem)
    row_shape = p.out.shape[:-1]
    texts = tgemm.row_coordinates("rm[:, None]", row_shape)
    per_group = p.w.shape[0] // p.groups
    if s.copy_engine and row_stride(p) is None:
        texts = [f"(images * {s.block_m} + tl.arange(0, {s.block_m}))[:, None]", *(f"o{axis}" for axis in range(p.rank))]
    column = "rn[None, :]" if p.groups == 1 else f"(batch * {per_group} + rn[None, :])"
    maps: dict[int, TensorMap] = {}
    if s.copy_engine:
        copied = _copied if row_stride(p) is not None else _stacked
        before, step, maps = copied(p, s, size)
    else:
        before, step = _gathered(p, s, size)
    names = [f"arg{i}" for i in range(len(p.reads))] + ["out0"]
    rank = len(p.out.shape)
    rows = texpr.Rows("rm[:, None]", tuple(range(rank - 1)), row_shape)
    if s.copy_engine and row_stride(p) is None:
        rows = texpr.NO_ROWS
    gemm = Gemm(
        size, before, step, tgemm.multiply(p.x, p.w, s, target), p.reads, p.out, p.epilogue,
        [*texts, column], range(rank - 1), [rank - 1], p.acc, names, rows,
        "arg1" if p.w.constant else "", size.batch * size.columns * tgemm.padded(size.depth) * p.w.dtype.size,
    )  # fmt: skip
    signature = [POINTER[o.dtype.name] for o in p.reads + p.writes]
    for i, m in maps.items():
        signature[i] = map_type(p.reads[i].dtype, m.box)
    work = tgemm.workspace_bytes(size, s)
    return GpuCode(
        "conv", tgemm.render(gemm, s, target), tuple(signature) + (("*i8",) if work else ()), tgemm.grid(size, s),
        s.num_warps, s.num_stages, work, maps, {1: packing(p, target)} if p.w.constant else {},
    )  # fmt: skip


def _copied(p: Problem, s: Schedule, size: Size) -> tuple[list[str], list[str], dict[int, TensorMap]]:
    stride = row_stride(p)
    assert stride is not None, "schedules offers the copy engine only where it can be used"
    depth = tgemm.padded(size.depth)
    maps = {
        0: TensorMap((size.rows, size.depth), (stride, 1), (s.part_rows, s.block_k)),
        1: TensorMap((size.columns, depth), (depth, 1), (s.block_n, s.block_k)),
    }
    step = [
        *tgemm.rows_loaded(s),
        f"b = arg1.load([pn * {s.block_n}, s * {s.block_k}]).T",
    ]
    return [], step, maps


def _stacked(p: Problem, s: Schedule, size: Size) -> tuple[list[str], list[str], dict[int, TensorMap]]:
    """Rows are images: x seen as [positions..., image, channel]."""
    axes, depth, channels = range(p.rank), tgemm.padded(size.depth), p.w.shape[1]
    spatial, places = p.x.strides[1:-1], p.x.shape[1:-1]
    maps = {
        0: TensorMap((*places, p.x.shape[0], channels), (*spatial, p.x.strides[0], 1), (1,) * p.rank + (s.block_m, s.block_k)),
        1: TensorMap((size.columns, depth), (depth, 1), (s.block_n, s.block_k)),
    }
    blocks, below = p.x.shape[0] // s.block_m, 1
    before = [f"images = pm % {blocks}", f"position = pm // {blocks}"]
    for axis in reversed(axes):
        before.append(f"o{axis} = position // {below} % {p.out.shape[axis + 1]}")
        before.append(f"x{axis} = o{axis} * {p.strides[axis]} - {p.pads[axis]}")
        below *= p.out.shape[axis + 1]
    per_tap, below = channels // s.block_k, 1
    at: list[str] = []
    step = [f"t = s // {per_tap}"]
    for axis in reversed(axes):
        at.insert(0, f"x{axis} + t // {below} % {p.w.shape[2 + axis]} * {p.dilations[axis]}")
        below *= p.w.shape[2 + axis]
    step += [
        f"a = arg0.load([{', '.join(at)}, images * {s.block_m}, s % {per_tap} * {s.block_k}])",
        f"a = a.reshape({s.block_m}, {s.block_k})",
        f"b = arg1.load([pn * {s.block_n}, s * {s.block_k}]).T",
    ]
    return before, step, maps


def _gathered(p: Problem, s: Schedule, size: Size) -> tuple[list[str], list[str]]:
    """Tiles loaded by the threads, each row from its own position."""
    channels = p.w.shape[1]
    before = [f"rk = tl.arange(0, {s.block_k})", *_rows(p, s, size)]
    step: list[str] = []
    if prod(p.w.shape[2:]) == 1:
        step += ["t = 0", f"c = s * {s.block_k} + rk"]
        tail = channels % s.block_k != 0
    elif channels % s.block_k == 0:
        per_tap = channels // s.block_k
        step += [f"t = s // {per_tap}" if per_tap > 1 else "t = s"]
        step += [f"c = s % {per_tap} * {s.block_k} + rk" if per_tap > 1 else "c = rk"]
        tail = False
    else:
        step += [f"k = s * {s.block_k} + rk", f"t = k // {channels}", f"c = k % {channels}"]
        tail = size.depth % s.block_k != 0
    inside = f"s * {s.block_k} + rk < {size.depth}" if tail else ""
    is_vector = step[-1].startswith("c = k %")
    taps, masks = _taps(p, is_vector)
    step += taps
    base = "[None, :]" if is_vector else ""
    where = [f"x_at + c[None, :] * {p.x.strides[-1]}"]
    if prod(p.w.shape[2:]) > 1:
        where.append(f"x_tap{base}")
    if inside:
        masks.append(f"({inside})[None, :]")
    outside = texpr.literal(p.pad_value, p.x.dtype)
    step.append(f"a = {texpr.load(' + '.join(where), ' & '.join(masks), outside, p.x.dtype)}")
    step += _filters(p, s, size, is_vector, inside)
    return before, step


def _rows(p: Problem, s: Schedule, size: Size) -> list[str]:
    """For every row: where its first tap lies in x, and the input position of that tap along each axis that needs checks."""
    lines = ["ra = rm"]
    if size.rows % s.block_m != 0:
        lines = [f"ra = rm % {size.rows}"]
    texts = tgemm.row_coordinates("ra", p.out.shape[:-1])
    terms = [f"({texts[0]}) * {p.x.strides[0]}"] if p.x.shape[0] != 1 else []
    for axis in range(p.rank):
        position = "ra * 0" if texts[axis + 1] == "0" else texts[axis + 1]
        text = f"({position}) * {p.strides[axis]}"
        lines.append(f"x{axis} = {text} - {p.pads[axis]}")
        terms.append(f"x{axis} * {p.x.strides[axis + 1]}")
    if p.groups > 1:
        terms.append(f"batch * {p.w.shape[1] * p.x.strides[-1]}")
    at = " + ".join(terms)
    if texpr.is_wide(p.x):
        at = at.replace("x0 *", "x0.to(tl.int64) *").replace(f"({texts[0]}) *", f"({texts[0]}).to(tl.int64) *")
    return [*lines, f"x_at = arg0 + ({at})[:, None]"]


def _taps(p: Problem, is_vector: bool) -> tuple[list[str], list[str]]:
    """From the tap number ``t``: its offset in x, and the conditions under which it lies inside x."""
    lines, masks, below, offsets = [], [], 1, []
    for axis in reversed(range(p.rank)):
        taps = p.w.shape[2 + axis]
        if taps > 1:
            text = "t" if below == 1 else f"t // {below}"
            outer = prod(p.w.shape[2 : 2 + axis]) > 1
            lines.append(f"t{axis} = ({text}) % {taps}" if outer else f"t{axis} = {text}")
            offsets.append(f"t{axis} * {p.dilations[axis] * p.x.strides[axis + 1]}")
        below *= taps
        if reaches_outside(p, axis):
            move = f" + t{axis}{'[None, :]' if is_vector else ''} * {p.dilations[axis]}" if taps > 1 else ""
            lines.append(f"p{axis} = x{axis}[:, None]{move}")
            masks.append(f"(p{axis} >= 0) & (p{axis} < {p.x.shape[axis + 1]})")
    if prod(p.w.shape[2:]) > 1:
        lines.append(f"x_tap = {' + '.join(offsets)}")
    return lines, masks


def reaches_outside(p: Problem, axis: int) -> bool:
    last = (p.out.shape[axis + 1] - 1) * p.strides[axis] + (p.w.shape[2 + axis] - 1) * p.dilations[axis] - p.pads[axis]
    return may_be(lambda: p.pads[axis] > 0 or last >= p.x.shape[axis + 1])


def _filters(p: Problem, s: Schedule, size: Size, is_vector: bool, inside: str) -> list[str]:
    """The tile of filters [block_k, block_n]."""
    columns = "rn"
    lines = []
    if size.columns % s.block_n != 0:
        lines.append(f"bn = rn % {size.columns}")
        columns = "bn"
    if p.w.constant:
        depth = tgemm.padded(size.depth)
        group = f"batch * {size.columns * depth} + " if p.groups > 1 else ""
        at = f"arg1 + {group}{columns}[None, :] * {depth} + (s * {s.block_k} + rk)[:, None]"
        return [*lines, f"b = tl.load({at})"]
    group = f"(batch * {size.columns} + {columns})" if p.groups > 1 else columns
    terms = [f"{group}[None, :] * {p.w.strides[0]}", f"c[:, None] * {p.w.strides[1]}"]
    for axis in range(p.rank):
        if p.w.shape[2 + axis] > 1:
            terms.append(f"t{axis}{'[:, None]' if is_vector else ''} * {p.w.strides[2 + axis]}")
    mask = f", mask=({inside})[:, None], other={texpr.zero(p.w.dtype)}" if inside else ""
    return [*lines, f"b = tl.load(arg1 + {' + '.join(terms)}{mask})"]


FAMILY = GpuFamily("conv", schedules, render, opens=True)
