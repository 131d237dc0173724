"""Softmax and the normalisations in Triton: a program holds whole rows in registers, in float32 whatever the operands are.

x[j] = prologue(i..., j)    y = softmax, log-softmax, (x - mean) / sqrt(var + epsilon), x / sqrt(mean x^2 + epsilon)
writes[0][i..., j] = epilogue(y[j], i..., j)        writes[1] = x, if there is a second write
"""

from dataclasses import dataclass

from redline.base.errors import RedlineError
from redline.base.extents import high, nominal
from redline.kernels import texpr, tgemm, ttext
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget, next_power
from redline.kernels.row.problem import Problem

MAX_LENGTH = 1 << 16


@dataclass(frozen=True)
class Schedule:
    """``rows`` rows for each program."""

    rows: int
    num_warps: int


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    """About eight elements a thread, and enough programs for every processor."""
    width = next_power(high(problem.length))
    if width > MAX_LENGTH:
        raise RedlineError("triton", f"rows of {problem.length} elements", f"at most {MAX_LENGTH}", "build it for the CPU")
    found = []
    for elements in (8, 16, 4):
        for warps in (1, 2, 4, 8, 16):
            rows = 32 * warps * elements // width
            if rows and (rows == 1 or -(-nominal(problem.num_rows) // rows) >= target.processors) and rows <= 32:
                found.append(Schedule(rows, warps))
    return found or [Schedule(1, 16 if width > 4096 else 4)]


def render(problem: Problem, s: Schedule, target: GpuTarget) -> GpuCode:
    p, width = problem, next_power(high(problem.length))
    rank = len(p.shape)
    names = [f"i{a}" for a in range(rank)]
    places = [*tgemm.row_coordinates("rm[:, None]", p.shape[:-1]), "rn[None, :]"]
    guards: dict[int, str] = {}
    if p.num_rows % s.rows != 0:
        guards.update(dict.fromkeys(range(rank - 1), f"(rm[:, None] < {p.num_rows})"))
    if p.length % width != 0:
        guards[rank - 1] = f"(rn[None, :] < {p.length})"
    body = [f"rm = tl.program_id(0) * {s.rows} + tl.arange(0, {s.rows})", f"rn = tl.arange(0, {width})"]
    body += [f"{n} = {t}" for n, t in zip(names, places, strict=True)] + ttext.wait(target)
    rows = texpr.Rows("rm[:, None]", tuple(range(rank - 1)), p.shape[:-1])
    renderer = texpr.Renderer(p.reads, names, p.shape, [], guards, rows=rows)
    statements, x = renderer.render(p.prologue)
    body += [*statements, f"x = {x} + tl.zeros(({s.rows}, {width}), {texpr.TYPES[p.prologue.dtype.name]})"]
    body += _normalise(p, guards.get(rank - 1, ""))
    renderer = texpr.Renderer(p.reads, names, p.shape, ["y"], guards, prefix="u", exact=p.writes[0].dtype.size > 2, rows=rows)
    statements, value = renderer.render_stored(p.epilogue, p.writes[0].dtype)
    conditions = list(dict.fromkeys(guards.values()))
    body += [*statements, texpr.store("out0", p.writes[0], names, value, conditions, rows)]
    if len(p.writes) > 1:
        body.append(texpr.store("out1", p.writes[1], names, "x", conditions, rows))
    params = [f"arg{i}" for i in range(len(p.reads))] + [f"out{i}" for i in range(len(p.writes))]
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    return GpuCode("row", ttext.module(params, body), signature, (-(-p.num_rows // s.rows), 1, 1), s.num_warps, 2)


def _normalise(p: Problem, guard: str) -> list[str]:
    """Statements from ``x`` to ``y``; ``guard`` says which columns exist."""
    hide = lambda name, value: f"tl.where({guard}, {name}, {value})" if guard else name  # noqa: E731
    if p.kind in ("softmax", "log_softmax"):
        nothing = 'float("-inf")'
        lines = [f"high = tl.reduce({hide('x', nothing)}, 1, rl_max)[:, None]", "moved = x - high"]
        lines += ["power = tl.exp(moved)", f"total = tl.sum({hide('power', '0.0')}, 1)[:, None]"]
        return [*lines, "y = power / total" if p.kind == "softmax" else "y = moved - tl.log(total)"]
    lines = ["centred = x"]
    if p.kind == "layer_norm":
        lines = [f"mean = tl.sum({hide('x', '0.0')}, 1)[:, None] / {p.length}", "centred = x - mean"]
    lines.append(f"kept = {hide('centred', '0.0')}")
    return [*lines, f"y = centred * tl.rsqrt(tl.sum(kept * kept, 1)[:, None] / {p.length} + {p.epsilon!r})"]


FAMILY = GpuFamily("row", schedules, render, opens=True)
