"""Depthwise convolutions in Triton: out[n, o, c] = epilogue(sum over taps k of x[n, o * stride + k - pad, c] * w[c, 0, k]).

Every thread sums the taps of its positions and channels in registers; filters are packed as [tap, channel]. Numbers of fixed
point below 2^15 become floats as the upper bits of a mantissa: (x + 2^15) / 2^16. The filters take the factor 2^16, and one
more row of them holds what the sum begins with, so that the 2^15 of all taps are gone at its end.
"""

from math import prod

import numpy as np

from redline.base.dtypes import uint16
from redline.base.errors import RedlineError
from redline.kernels import texpr, ttext, window
from redline.kernels.depthwise.problem import LIMIT, Problem
from redline.kernels.gpu import POINTER, GpuCode, GpuFamily, GpuTarget
from redline.kernels.problem import Packing
from redline.kernels.window import Axis, Schedule


def schedules(problem: Problem, target: GpuTarget) -> list[Schedule]:
    return window.schedules(problem.out, target)


def _pack(w: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(w.reshape(w.shape[0], -1).T)


def _pack_for_upper(w: np.ndarray) -> np.ndarray:
    taps = _pack(w).astype(np.float64)
    return np.concatenate([taps * (2 * LIMIT), -LIMIT * taps.sum(axis=0, keepdims=True)]).astype(np.float32)


def _is_upper(problem: Problem, target: GpuTarget) -> bool:
    """Whether x is converted by its bits."""
    return problem.x.dtype == uint16 and 0 < problem.limit <= LIMIT and not target.plain


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
    upper, count = _is_upper(p, target), prod(p.w.shape[2:])
    body += [f"w{t} = tl.load(arg1 + {t * channels} + rn[None, :]{mask}).to({kind})" for t in range(count + upper)]
    start = f" + w{count}" if upper else ""
    body += [*ttext.wait(target), *before, f"acc = tl.zeros(({s.positions}, {s.channels}), {kind}){start}"]
    body += [f"acc += {f'rl_upper({load})' if upper else f'{load}.to({kind})'} * w{number}" for number, load, _ in taps]
    renderer = texpr.Renderer(p.reads, names, p.out.shape, ["acc"], outside, exact=p.x.dtype.size > 2)
    statements, value = renderer.render_stored(p.epilogue, p.out.dtype)
    body += [*statements, texpr.store(window.pointer(p.out), p.out, names, value, list(dict.fromkeys(outside.values())))]
    params = [f"arg{i}" for i in range(len(p.reads))] + ["out0"]
    signature = tuple(POINTER[o.dtype.name] for o in p.reads + p.writes)
    text = ttext.module(params, body)
    packing = Packing("taps for upper", _pack_for_upper) if upper else Packing("taps", _pack)
    return GpuCode("depthwise", text, signature, window.grid(p.out, s), s.num_warps, 2, packings={1: packing})


FAMILY = GpuFamily("depthwise", schedules, render, opens=True)
