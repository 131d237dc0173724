"""Scans in Triton: a program takes some lines, and each of them in chunks; what a chunk adds up to goes on to the next.

out[i..., j] = body(i..., 0) + ... + body(i..., j), or the product; exclusive scans begin with 0 or 1 and read one less

Terms of a chunk are joined as a tree, so floating-point sums differ from sequential ones in their rounding; they repeat.
"""

from dataclasses import dataclass

from redline.base.shapes import size
from redline.kernels import texpr, tgemm, ttext
from redline.kernels.functions import compute_type
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget, next_power
from redline.kernels.scan.problem import KINDS, Problem

FOLD = {"sum": "rl_add", "prod": "rl_mul"}
MAX_CHUNK = 4096


@dataclass(frozen=True)
class Schedule:
    """``lines`` lines for each program, ``chunk`` elements of them at a time."""

    lines: int
    chunk: int
    num_warps: int = 4


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    """Few lines a program where there are few of them; about 16 elements a thread."""
    length, count = problem.out.shape[-1], size(problem.out.shape[:-1])
    chunk = min(MAX_CHUNK, next_power(max(16, length)))
    lines = max(1, min(next_power(-(-count // target.processors)), 2048 // chunk))
    found = [Schedule(lines, chunk, warps) for warps in (4, 8)]
    return [*found, Schedule(1, chunk, 4), Schedule(1, min(chunk, 512), 2)]


def render(problem: Problem, s: Schedule, target: GpuTarget) -> GpuCode:
    p, count, length = problem, size(problem.out.shape[:-1]), problem.out.shape[-1]
    rank, kind = len(p.out.shape), texpr.TYPES[compute_type(p.out.dtype).name]
    start = texpr.literal(KINDS[p.kind][1], compute_type(p.out.dtype))
    names = [f"i{axis}" for axis in range(rank - 1)]
    row_guard = f"(line[:, None] < {count})" if count % s.lines else ""
    body = [f"line = tl.program_id(0) * {s.lines} + tl.arange(0, {s.lines})", *ttext.wait(target)]
    places = tgemm.row_coordinates("line[:, None]", p.out.shape[:-1])
    body += [f"{n} = {t}" for n, t in zip(names, places, strict=True)]
    body.append(f"before = tl.full(({s.lines}, 1), {start}, {kind})")
    at = f"{length - 1} - step" if p.reverse else "step"
    loop = [f"step = c * {s.chunk} + tl.arange(0, {s.chunk})", f"j = ({at})[None, :]"]
    source, inside = "j", [f"(step[None, :] < {length})"] if length % s.chunk else []
    if p.exclusive:
        loop.append(f"term = j {'+' if p.reverse else '-'} 1")
        source, inside = "term", [f"(step[None, :] <= {length})", "(step[None, :] > 0)"]
    guards = dict.fromkeys(range(rank - 1), row_guard) if row_guard else {}
    reading = {**guards, rank - 1: f"({' & '.join(inside)})"} if inside else guards
    renderer = texpr.Renderer(p.reads, [*names, source], p.out.shape, [], reading)
    statements, value = renderer.render(p.body)
    loop += [*statements, f"value = {texpr.tile(value, p.out.dtype, (s.lines, s.chunk))}"]
    if inside:
        loop.append(f"value = tl.where({' & '.join(inside)}, value, {start})")
    fold = FOLD[p.kind]
    loop += [f"total = {fold}(tl.associative_scan(value, 1, {fold}), before)"]
    loop += [f"before = {fold}(tl.reduce(value, 1, {fold})[:, None], before)"]
    conditions = [row_guard] if row_guard else []
    if length % s.chunk:
        conditions.append(f"(step[None, :] < {length})")
    whole = "(out0 + line[:, None] * 0 + j * 0)" if 1 in (count, length) else "out0"
    loop.append(texpr.store(whole, p.out, [*names, "j"], "total", conditions))
    body += [f"for c in range(0, {-(-length // s.chunk)}):", *(f"    {line}" for line in loop)]
    params = [f"arg{i}" for i in range(len(p.reads))] + ["out0"]
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    return GpuCode("scan", ttext.module(params, body), signature, (-(-count // s.lines), 1, 1), s.num_warps)


FAMILY = GpuFamily("scan", schedules, render)
