"""Depthwise convolutions in Triton: out[n, o, c] = epilogue(sum over taps k of x[n, o * stride + k - pad, c] * w[c, 0, k]).

Every thread sums the taps of its positions and channels in registers; filters are packed as [tap, channel]. Numbers of fixed
point that are not below 2^15 become floats as the upper bits of the mantissa of a number of [1, 2), which is x / 2^15; the
filters take that factor.
"""

from math import prod

import numpy as np

from redline.base.dtypes import uint16
from redline.base.errors import RedlineError
from redline.kernels import texpr, window
from redline.kernels.depthwise.problem import LEAST, Problem
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget
from redline.kernels.problem import Packing
from redline.kernels.window import Axis, Schedule


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    return window.schedules(problem.out, target)


def _pack(w: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(w.reshape(w.shape[0], -1).T)


def _pack_for_upper(w: np.ndarray) -> np.ndarray:
    return _pack(w) * np.float32(LEAST)


def _is_upper(problem: Problem, s: Schedule, target: GpuTarget) -> bool:
    """Whether x is converted by its bits: two of them at a time, which every thread must have."""
    pairs = s.positions * s.channels >= 64 * s.num_warps
    return problem.x.dtype == uint16 and problem.least >= LEAST and pairs and not target.plain


def render(problem: Problem, s: Schedule, target: GpuTarget) -> GpuCode:
    p = problem
    if not p.w.constant:
        raise RedlineError("triton", "a depthwise convolution whose filters are no constants", "", "build it for the CPU")
    axes = [Axis(*each) for each in zip(p.w.shape[2:], p.strides, p.dilations, p.pads[: p.rank], strict=True)]
    outside = window.guards(p.out, s)
    channels = p.out.shape[-1]
    before, taps = window.taps(p.x, p.out, axes, outside, texpr.literal(p.pad_value, p.x.dtype))
    kind = texpr.TYPES[p.acc.name]
    names = [f"i{a}" for a in range(len(p.out.shape))]
    places = [f"{n} = {t}" for n, t in zip(names, window.coordinates(p.out), strict=True)]
    guard = outside.get(len(p.out.shape) - 1)
    mask = f", mask={guard}, other={texpr.zero(p.w.dtype)}" if guard else ""
    body = [*window.head(p.out, s), *places]
    body += [f"w{t} = tl.load(arg1 + {t * channels} + rn[None, :]{mask}).to({kind})" for t in range(prod(p.w.shape[2:]))]
    body += [*texpr.wait(target), *before, f"acc = tl.zeros(({s.positions}, {s.channels}), {kind})"]
    upper = _is_upper(p, s, target)
    body += [f"acc += {f'rl_upper({load})' if upper else f'{load}.to({kind})'} * w{number}" for number, load, _ in taps]
    renderer = texpr.Renderer(p.reads, names, p.out.shape, ["acc"], outside, exact=p.x.dtype.size > 2)
    statements, value = renderer.render_stored(p.epilogue, p.out.dtype)
    body += [*statements, texpr.store(window.pointer(p.out), p.out, names, value, list(dict.fromkeys(outside.values())))]
    params = [f"arg{i}" for i in range(len(p.reads))] + ["out0"]
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    text = texpr.module(params, body)
    packing = Packing("taps for upper", _pack_for_upper) if upper else Packing("taps", _pack)
    return GpuCode("depthwise", text, signature, window.grid(p.out, s), s.num_warps, 2, packings={1: packing})


FAMILY = GpuFamily("depthwise", schedules, render, opens=True)
