"""Loop nests in Triton: pointwise work and data movement over flat blocks of elements, reductions over tiles.

Without a reduction a program computes ``block`` elements that follow each other in row-major order. With one, a tile of
``block`` results by ``chunk`` reduced elements, the latter in a loop.
"""

from dataclasses import dataclass

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import RedlineError
from redline.base.extents import high, nominal
from redline.base.shapes import size
from redline.kernels import texpr, tgemm, ttext
from redline.kernels.accumulator import ARG_KINDS
from redline.kernels.functions import compute_type, extreme
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget, next_power
from redline.kernels.nest.problem import Problem

FOLD = {"sum": "rl_add", "prod": "rl_mul", "max": "rl_max", "min": "rl_min"}


@dataclass(frozen=True)
class Schedule:
    """``block`` results a program, ``chunk`` reduced elements at a time."""

    block: int
    chunk: int = 1
    num_warps: int = 4


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    count = nominal(size(problem.shape))
    if problem.reduction is None:
        found = [
            Schedule(block, 1, max(1, min(8, block // 256)))
            for block in (1024, 2048, 512, 4096, 256)
            if block == 256 or count >= block * target.processors
        ]
        return found or [Schedule(256, 1, 2)]
    reduced = next_power(max(1, nominal(size(problem.reduction.extents))))
    found = []
    for block in (64, 32, 16, 8, 4, 2, 1, 128):
        for total, warps in ((2048, 4), (4096, 8), (1024, 4)):
            chunk = min(reduced, total // block)
            if chunk >= 1 and (block == 1 or -(-count // block) >= target.processors):
                found.append(Schedule(block, chunk, warps))
    return found


def render(problem: Problem, s: Schedule, target: GpuTarget) -> GpuCode:
    p, rank = problem, len(problem.shape)
    count = size(p.shape)
    wide = high(count) + s.block >= 1 << 31
    start = f"tl.program_id(0){'.to(tl.int64)' if wide else ''} * {s.block}"
    body = [f"at = {start} + tl.arange(0, {s.block})", *ttext.wait(target)]
    if p.reduction is None:
        body += _pointwise(p, s)
    else:
        body += _reduce(p, s)
    params = [f"arg{i}" for i in range(len(p.reads))] + [f"out{i}" for i in range(len(p.writes))]
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    assert rank >= 0
    return GpuCode("nest", ttext.module(params, body), signature, (-(-count // s.block), 1, 1), s.num_warps, 2)


def _pointwise(p: Problem, s: Schedule) -> list[str]:
    count = size(p.shape)
    names = [f"i{a}" for a in range(len(p.shape))]
    lines = [f"{n} = {t}" for n, t in zip(names, tgemm.row_coordinates("at", p.shape), strict=True)]
    guards = dict.fromkeys(range(len(p.shape)), f"(at < {count})") if count % s.block != 0 else {}
    exact = all(o.dtype.size > 2 for o in p.writes)
    rows = texpr.Rows("at", tuple(range(len(p.shape))), p.shape)
    renderer = texpr.Renderer(p.reads, names, p.shape, [], guards, exact=exact, rows=rows)
    for i, (body, write) in enumerate(zip(p.bodies, p.writes, strict=True)):
        statements, value = renderer.render_stored(body, write.dtype)
        lines += [*statements, _store(i, p, names, value, list(dict.fromkeys(guards.values())))]
    return lines


def _store(i: int, p: Problem, names: list[str], value: str, guards: list[str]) -> str:
    """Flat where the write is, so that the compiler sees neighbours side by side."""
    write = p.writes[i]
    mask = f", mask={guards[0]}" if guards else ""
    if not p.shape or size(p.shape) == 1:
        return f"tl.store(out{i} + at, {texpr.to_storage(write.dtype, value)}, mask=at < 1)"
    if write.is_contiguous and not texpr.is_wide(write):
        return f"tl.store(out{i} + at, {texpr.to_storage(write.dtype, value)}{mask})"
    return texpr.store(f"out{i}", write, names, value, guards)


def _reduce(p: Problem, s: Schedule) -> list[str]:
    assert p.reduction is not None
    rank, count, reduced = len(p.shape), size(p.shape), size(p.reduction.extents)
    names = [f"i{a}" for a in range(rank)]
    inner = [f"r{a}" for a in range(len(p.reduction.extents))]
    outside = f"(at < {count})" if count % s.block != 0 else ""
    columns = tgemm.row_coordinates("at[:, None]", p.shape)
    lines = [f"{n} = {t}" for n, t in zip(names, columns, strict=True)]
    guards = dict.fromkeys(range(rank), f"(at[:, None] < {count})") if outside else {}
    inside = f"(step[None, :] < {reduced})" if reduced % s.chunk != 0 else ""
    if inside:
        guards.update(dict.fromkeys(range(rank, rank + len(inner)), inside))
    kind = p.reduction.kind
    accs = [p.reduction.acc_dtype(body.dtype) for body in p.bodies]
    if kind in ARG_KINDS:
        accs = [body.dtype for body in p.bodies]
    held = [compute_type(acc) for acc in accs]
    for i, dtype in enumerate(held):
        lines.append(f"acc{i} = tl.full(({s.block}, {s.chunk}), {_identity(kind, dtype)}, {texpr.TYPES[dtype.name]})")
        if kind in ARG_KINDS:
            lines.append(f"pos{i} = tl.full(({s.block}, {s.chunk}), {1 << 30}, tl.int32)")
    loop = [f"step = c * {s.chunk} + tl.arange(0, {s.chunk})"]
    loop += [f"{n} = {t}" for n, t in zip(inner, tgemm.row_coordinates("step[None, :]", p.reduction.extents), strict=True)]
    renderer = texpr.Renderer(p.reads, [*names, *inner], p.domain, [], guards)
    for i, (body, dtype) in enumerate(zip(p.bodies, held, strict=True)):
        statements, value = renderer.render(body)
        value = f"tl.broadcast_to(({value}).to({texpr.TYPES[dtype.name]}), ({s.block}, {s.chunk}))"
        loop += [*statements, f"v{i} = {value}"]
        if kind in ARG_KINDS:
            loop += _take(i, kind, inside, dtype)
            continue
        if inside:
            loop.append(f"v{i} = tl.where({inside}, v{i}, {_identity(kind, dtype)})")
        loop.append(f"acc{i} = {FOLD[kind]}(acc{i}, v{i})")
    lines.append(f"for c in range(0, {-(-reduced // s.chunk)}):")
    lines += [f"    {line}" for line in loop]
    flat = [f"o{a}" for a in range(rank)]
    for i in range(len(p.bodies)):
        if kind in ARG_KINDS:
            lines += _best(i, kind)
        else:
            fold = f"tl.reduce(acc{i}, 1, {FOLD[kind]})"
            lines.append(f"total{i} = {fold}")
    lines += [f"{n} = {t}" for n, t in zip(flat, tgemm.row_coordinates("at", p.shape), strict=True)]
    known = dict.fromkeys(range(rank), outside) if outside else {}
    totals = [f"total{i}" for i in range(len(p.bodies))]
    exact = all(o.dtype.size > 2 for o in p.writes)
    results = texpr.Renderer(p.reads, flat, p.shape, totals, known, prefix="u", exact=exact)
    for i, expr in enumerate(p.results):
        statements, value = results.render(expr)
        lines += [*statements, _store(i, p, flat, value, [outside] if outside else [])]
    return lines


def _identity(kind: str, dtype: DType) -> str:
    if kind in ("sum", "prod"):
        return "1" if kind == "prod" else "0"
    if dtype == dtypes.bool_:
        raise RedlineError("triton", "the extreme of booleans has no GPU form yet", "", "build this model for the CPU")
    return texpr.literal(extreme(dtype, lowest="max" in kind), dtype)


def _take(i: int, kind: str, inside: str, dtype: DType) -> list[str]:
    """``v`` at position ``step`` joins the best so far, column by column; a NaN beats every number."""
    better = ">" if "max" in kind else "<"
    ties = f" | (v{i} == acc{i})" if kind.endswith("_last") else ""
    take = f"((v{i} {better} acc{i}){ties} | (pos{i} == {1 << 30}))"
    if dtype.is_float:
        later = "" if kind.endswith("_last") else f" & (acc{i} == acc{i})"
        take = f"(({take} & (acc{i} == acc{i})) | ((v{i} != v{i}){later}))"
    if inside:
        take = f"({take} & {inside})"
    return [
        f"take{i} = {take}", f"acc{i} = tl.where(take{i}, v{i}, acc{i})",
        f"pos{i} = tl.where(take{i}, step[None, :] + 0 * pos{i}, pos{i})",
    ]  # fmt: skip


def _best(i: int, kind: str) -> list[str]:
    """The best of the columns: the extreme value (NaN first), then the first or last position that has it."""
    seen = f"pos{i} != {1 << 30}"
    fold = "rl_max" if "max" in kind else "rl_min"
    pick, none = ("tl.max", "-1") if kind.endswith("_last") else ("tl.min", str(1 << 30))
    return [
        f"peak{i} = tl.reduce(acc{i}, 1, {fold})[:, None]",
        f"same{i} = ((acc{i} == peak{i}) | ((acc{i} != acc{i}) & (peak{i} != peak{i}))) & ({seen})",
        f"total{i} = tl.maximum({pick}(tl.where(same{i}, pos{i}, {none}), 1), 0).to(tl.int64)",
    ]


FAMILY = GpuFamily("nest", schedules, render, opens=True)
