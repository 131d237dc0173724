"""Pools in Triton: the largest value, or the mean, of each window; every thread has positions and channels of its own."""

from redline.kernels import texpr, ttext, window
from redline.kernels.functions import extreme
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget
from redline.kernels.pool.problem import Problem
from redline.kernels.window import Axis, Schedule


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    return window.schedules(problem.out, target)


def render(problem: Problem, s: Schedule, target: GpuTarget) -> GpuCode:
    p = problem
    axes = [Axis(w.kernel, w.stride, w.dilation, w.pad_begin) for w in p.windows]
    outside = window.guards(p.out, s)
    kind = texpr.TYPES[p.acc.name]
    lowest = texpr.literal(extreme(p.x.dtype, lowest=True), p.x.dtype) if p.kind == "max" else "0"
    before, taps = window.taps(p.x, p.out, axes, outside, lowest)
    names = [f"i{a}" for a in range(len(p.out.shape))]
    places = [f"{n} = {t}" for n, t in zip(names, window.coordinates(p.out), strict=True)]
    begin = texpr.literal(extreme(p.acc, lowest=True), p.acc) if p.kind == "max" else "0"
    body = [*window.head(p.out, s), *places, *ttext.wait(target), *before]
    body.append(f"acc = tl.full(({s.positions}, {s.channels}), {begin}, {kind})")
    nan = f", {texpr.NAN}" if p.acc.is_float else ""
    for _, load, _ in taps:
        value = f"{load}.to({kind})"
        body.append(f"acc = tl.maximum(acc, {value}{nan})" if p.kind == "max" else f"acc += {value}")
    if p.kind == "average":
        body += _count(p, axes)
    renderer = texpr.Renderer(p.reads, names, p.out.shape, ["acc"], outside, exact=p.x.dtype.size > 2)
    statements, value = renderer.render_stored(p.epilogue, p.out.dtype)
    body += [*statements, texpr.store(window.pointer(p.out), p.out, names, value, list(dict.fromkeys(outside.values())))]
    params = [f"arg{i}" for i in range(len(p.reads))] + ["out0"]
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    return GpuCode("pool", ttext.module(params, body), signature, window.grid(p.out, s), s.num_warps, 2)


def _count(p: Problem, axes: list[Axis]) -> list[str]:
    """Divides by the number of taps that count: a product over the axes."""
    lines = []
    for a, (axis, w) in enumerate(zip(axes, p.windows, strict=True)):
        low, high = (-w.pad_begin, p.x.shape[a + 1] + w.pad_end) if p.count_padding else (0, p.x.shape[a + 1])
        terms = []
        for t in range(axis.taps):
            at = f"x{a} + {t * axis.dilation}"
            terms.append(f"(({at} >= {low}) & ({at} < {high}) & (i{len(axes) + 1} >= 0)).to(tl.int32)")
        lines.append(f"n{a} = {' + '.join(terms)}")
    return [*lines, f"acc = acc / ({' * '.join(f'n{a}' for a in range(len(axes)))}).to({texpr.TYPES[p.acc.name]})"]


FAMILY = GpuFamily("pool", schedules, render, opens=True)
