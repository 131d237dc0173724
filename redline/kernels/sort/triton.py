"""Sorts in Triton by counting: a key's place is the number of keys that come before it, so every key writes its own result.

place[i] = number of positions j whose key comes before key i        values[place[i]] = key i,  indices[place[i]] = i

n keys take n * n comparisons and nothing else: no exchange between programs, no order to wait for, equal keys as they stood.
"""

from dataclasses import dataclass

from redline.base.shapes import size
from redline.kernels import texpr, tgemm, ttext
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget, next_power
from redline.kernels.sort.problem import Problem


@dataclass(frozen=True)
class Schedule:
    """``block`` keys a program find their places, compared with ``chunk`` others at a time."""

    block: int
    chunk: int
    num_warps: int = 4


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    most = next_power(max(16, problem.length))
    tiles = ((32, 128, 4), (64, 128, 8), (16, 128, 4), (128, 64, 8), (16, 64, 2))
    return list(dict.fromkeys(Schedule(min(block, most), min(chunk, most), warps) for block, chunk, warps in tiles))


def render(problem: Problem, s: Schedule, target: GpuTarget) -> GpuCode:
    p, rank, length = problem, len(problem.shape), problem.length
    rows, blocks = size(p.shape[:-1]), -(-p.length // s.block)
    names = [f"i{axis}" for axis in range(rank - 1)]
    body = [f"row = tl.program_id(0) // {blocks}", *ttext.wait(target)]
    body += [f"{n} = {t}" for n, t in zip(names, tgemm.row_coordinates("row", p.shape[:-1]), strict=True)]
    body.append(f"mine = tl.program_id(0) % {blocks} * {s.block} + tl.arange(0, {s.block})")
    body += _keys(p, names, "mine", s.block, "own", length % s.block > 0)
    body += [f"place = tl.zeros(({s.block},), tl.int32)", "a, at = own[:, None], mine[:, None]"]
    loop = [f"others = c * {s.chunk} + tl.arange(0, {s.chunk})"]
    loop += _keys(p, names, "others", s.chunk, "key", length % s.chunk > 0)
    loop += ["b, to = key[None, :], others[None, :]", *_before(p)]
    if length % s.chunk:
        loop.append(f"before = before & (to < {length})")
    loop.append("place += tl.sum(before.to(tl.int32), 1)")
    body += [f"for c in range(0, {-(-length // s.chunk)}):", *(f"    {line}" for line in loop)]
    conditions = [f"(mine < {length})"] if length % s.block else []
    if p.count < length:
        conditions.append(f"(place < {p.count})")
    first = " + place * 0" if p.count == 1 else ""
    body.append(texpr.store(f"(out0{first})", p.values, [*names, "place"], "own", conditions))
    body.append(texpr.store(f"(out1{first})", p.indices, [*names, "place"], "mine", conditions))
    params = [f"arg{i}" for i in range(len(p.reads))] + ["out0", "out1"]
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    return GpuCode("sort", ttext.module(params, body), signature, (rows * blocks, 1, 1), s.num_warps)


def _keys(p: Problem, names: list[str], at: str, count: int, name: str, ragged: bool) -> list[str]:
    """The keys at the positions ``at``."""
    guards = {len(names): f"({at} < {p.length})"} if ragged else {}
    renderer = texpr.Renderer(p.reads, [*names, at], p.extents, [], guards, prefix=f"{name}_")
    statements, value = renderer.render(p.key)
    return [*statements, f"{name} = {texpr.tile(value, p.key.dtype, (count,))}"]


def _before(p: Problem) -> list[str]:
    """Whether key b at position ``to`` comes before key a at ``at``; NaN is the largest key."""
    if not p.key.dtype.is_float:
        strict, equal = ("b > a" if p.largest else "b < a"), "b == a"
    else:
        nans = "((b != b) & (a == a))" if p.largest else "((a != a) & (b == b))"
        strict, equal = f"(b {'>' if p.largest else '<'} a) | {nans}", "(b == a) | ((b != b) & (a != a))"
    return [f"before = ({strict}) | (({equal}) & (to < at))"]


FAMILY = GpuFamily("sort", schedules, render)
