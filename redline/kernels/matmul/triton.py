"""Matrix products in Triton: out[..., m, n] = epilogue(sum over k of a[..., m, k] * b[..., k, n]).

Batch axes along which b does not change join the rows: one weight matrix is one product, whatever the batch. A constant b
is packed as [product, n, k] with k padded to a multiple of 64, so that its tiles need no masks.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from redline.kernels import crew, texpr, tgemm
from redline.kernels.crew_epilogue import HALVES, reading
from redline.kernels.expr import loads
from redline.kernels.gemm_schedule import Schedule, Size, candidates
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget, TensorMap, map_type
from redline.kernels.matmul.problem import Problem
from redline.kernels.parts import any_open
from redline.kernels.problem import Operand, Packing
from redline.kernels.tgemm import Gemm

MOST_CREWS = 8  # that are tried


@dataclass(frozen=True)
class _Axes:
    """The batch axes that join the rows, and those that number separate products."""

    folded: tuple[int, ...]
    kept: tuple[int, ...]

    @staticmethod
    def of(p: Problem) -> "_Axes":
        kept = [axis for axis, extent in enumerate(p.batch) if p.b.strides[axis] != 0 and extent != 1]
        return _Axes(tuple(axis for axis in range(len(p.batch)) if axis not in kept), tuple(kept))

    def rows(self, p: Problem) -> tuple[int, ...]:
        return (*(p.batch[axis] for axis in self.folded), p.m)

    def products(self, p: Problem) -> tuple[int, ...]:
        return tuple(p.batch[axis] for axis in self.kept)


def size_of(p: Problem) -> Size:
    axes = _Axes.of(p)
    return Size(prod(axes.rows(p)), p.n, p.k, prod(axes.products(p)), p.a.dtype.size)


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule | crew.Crew]:
    by_copies = row_stride(problem) is not None and target.has_copy_engine
    crews = crew.candidates(size_of(problem), target) if by_copies and crew_product(problem) else []
    return [*crews[:MOST_CREWS], *candidates(size_of(problem), target, by_copies)]


def crew_product(p: Problem) -> crew.Product | None:
    """The problem as crews see it; None where they cannot do it."""
    if p.a.dtype != p.b.dtype or not {p.a.dtype.name, p.out.dtype.name} <= set(HALVES) or any_open(p.reads, p.writes):
        return None
    size = size_of(p)
    dense = merged_stride((*_Axes.of(p).rows(p), p.n), p.out.strides) == 1 and p.out.strides[-1] == 1
    how = reading(p.epilogue, p.reads, p.out)
    return crew.Product(size, p.reads, p.out, p.epilogue, how) if dense and how else None


def row_stride(p: Problem) -> int | None:
    """The distance of the rows of a where tensor maps can describe both operands; None where they cannot."""
    axes = _Axes.of(p)
    if axes.kept or not p.b.constant or p.a.strides[-1] != 1 or any(load.operand < 2 for load in loads(p.epilogue)):
        return None
    stride = merged_stride(axes.rows(p), (*(p.a.strides[axis] for axis in axes.folded), p.a.strides[-2]))
    return stride if stride is not None and stride * p.a.dtype.size % 16 == 0 else None


def merged_stride(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The one stride of axes that follow each other evenly."""
    found: int | None = None
    run = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent == 1:
            continue
        if found is None:
            found = stride
        elif stride != found * run:
            return None
        run *= extent
    return found if found is not None else shape[-1] and strides[-1]


def render(problem: Problem, schedule: Schedule | crew.Crew, target: GpuTarget) -> GpuCode:
    if isinstance(schedule, crew.Crew):
        return _render_crew(problem, schedule, target)
    p, s, axes = problem, schedule, _Axes.of(problem)
    size = size_of(p)
    rank = len(p.out.shape)
    row_texts = texpr_rows(axes.rows(p))
    products = tgemm.row_coordinates("batch", axes.products(p)) if axes.kept else []
    at = dict(zip(axes.folded, row_texts, strict=False))
    at.update(zip(axes.kept, products, strict=True))
    coordinates = [at[axis] for axis in range(rank - 2)] + [row_texts[-1], "rn[None, :]"]
    before, step, maps = _loads(p, s, axes, coordinates, row_stride(p))
    reads, writes = p.reads, p.writes
    names = [f"arg{i}" for i in range(len(reads))] + ["out0"]
    row_axes = [*axes.folded, rank - 2]
    constant_bytes = size.batch * p.n * tgemm.padded(p.k) * p.b.dtype.size if p.b.constant else 0
    gemm = Gemm(
        size, before, step, tgemm.multiply(p.a, p.b, s, target), reads, p.out, p.epilogue,
        coordinates, row_axes, [rank - 1], p.acc, names, texpr.Rows("rm[:, None]", tuple(row_axes), axes.rows(p)),
        "arg1" if constant_bytes else "", constant_bytes,
    )  # fmt: skip
    signature = [POINTER[o.dtype.name] for o in reads + writes]
    for i, m in maps.items():
        signature[i] = map_type(reads[i].dtype, m.box)
    work = tgemm.workspace_bytes(size, s)
    packings = {1: packing(p, target)} if p.b.constant else {}
    return GpuCode(
        "matmul", tgemm.render(gemm, s, target), tuple(signature) + (("*i8",) if work else ()), tgemm.grid(size, s),
        s.num_warps, s.num_stages, work, maps, packings,
    )  # fmt: skip


def _render_crew(p: Problem, s: crew.Crew, target: GpuTarget) -> GpuCode:
    product, stride = crew_product(p), row_stride(p)
    assert product and stride
    depth = tgemm.padded(p.k)
    a_box, b_box = crew.boxes(s)
    maps = {
        0: TensorMap((product.size.rows, p.k), (stride, 1), a_box),
        1: TensorMap((p.n, depth), (depth, 1), b_box),
    }
    signature = [POINTER[o.dtype.name] for o in p.reads + p.writes]
    for i, m in maps.items():
        signature[i] = map_type(p.reads[i].dtype, m.box)
    return GpuCode(
        "matmul", crew.render(product, s, target), tuple(signature), crew.grid(product.size, s, target), s.num_warps, 0, 0,
        maps, {1: packing(p, target)}, language="cuda", shared_bytes=s.shared_bytes,
    )  # fmt: skip


def texpr_rows(shape: tuple[int, ...]) -> list[str]:
    return tgemm.row_coordinates("rm[:, None]", shape)


def packing(p: Problem, target: GpuTarget) -> Packing:
    depth, rounds = tgemm.padded(p.k), tgemm.rounds(p.b.dtype, target)
    kept = _Axes.of(p).kept

    def apply(b: np.ndarray) -> np.ndarray:
        one = b[tuple(slice(None) if axis in kept else 0 for axis in range(b.ndim - 2))]
        turned = np.swapaxes(one, -1, -2)
        pad = [(0, 0)] * (turned.ndim - 1) + [(0, depth - p.k)]
        packed = np.ascontiguousarray(np.pad(turned, pad))
        return tgemm.rounded(packed) if rounds else packed

    return Packing(f"nk{depth}{'r' if rounds else ''}", apply)


def _loads(
    p: Problem, s: Schedule, axes: _Axes, coordinates: list[str], stride: int | None
) -> tuple[list[str], list[str], dict[int, TensorMap]]:
    """Statements before the loop, those that load tiles a and b, and the tensor maps."""
    depth = tgemm.padded(p.k)
    if s.copy_engine and stride is not None:
        maps = {
            0: TensorMap((prod(axes.rows(p)), p.k), (stride, 1), (s.part_rows, s.block_k)),
            1: TensorMap((p.n, depth), (depth, 1), (s.block_n, s.block_k)),
        }
        step = [
            *tgemm.rows_loaded(s),
            f"b = arg1.load([pn * {s.block_n}, s * {s.block_k}]).T",
        ]
        return [], step, maps
    size = size_of(p)
    before = [f"rk = tl.arange(0, {s.block_k})"]
    rows, columns = "rm", "rn"
    if size.rows % s.block_m != 0:
        before.append(f"am = rm % {size.rows}")
        rows = "am"
    if size.columns % s.block_n != 0:
        before.append(f"bn = rn % {size.columns}")
        columns = "bn"
    place = [c.replace("rm[:, None]", f"{rows}[:, None]") for c in coordinates]
    k_text, mask = "rk", ""
    step = []
    if p.k % s.block_k != 0:
        step.append(f"inside = (s * {s.block_k} + rk) < {p.k}")
        mask = f", mask=inside[None, :], other={texpr.zero(p.a.dtype)}"
    even = texpr.Rows(f"{rows}[:, None]", (*axes.folded, len(place) - 2), axes.rows(p))
    a = f"{rows}[:, None] * 0 + {_offset(p.a, [*place[:-2], place[-2], '0'], even)}"
    before.append(f"a_at = arg0 + {a} + {k_text}[None, :] * {p.a.strides[-1]}")
    step.append(f"a = tl.load(a_at + s * {s.block_k * p.a.strides[-1]}{mask})")
    b_mask = ""
    if p.b.constant:
        base = f"batch * {p.n * depth} + " if axes.kept else ""
        before.append(f"b_at = arg1 + {base}{columns}[None, :] * {depth} + rk[:, None]")
        step.append(f"b = tl.load(b_at + s * {s.block_k})")
    else:
        b_mask = f", mask=inside[:, None], other={texpr.zero(p.b.dtype)}" if mask else ""
        base = _offset(p.b, [*place[:-2], "0", "0"])
        before.append(f"b_at = arg1 + {base} + {columns}[None, :] * {p.b.strides[-1]} + rk[:, None] * {p.b.strides[-2]}")
        step.append(f"b = tl.load(b_at + s * {s.block_k * p.b.strides[-2]}{b_mask})")
    return before, step, {}


def _offset(operand: Operand, coordinates: list[str], rows: texpr.Rows = texpr.NO_ROWS) -> str:
    return texpr.offset(operand, [c if c == "0" or c.isidentifier() else f"({c})" for c in coordinates], rows)


FAMILY = GpuFamily("matmul", schedules, render, opens=True)
