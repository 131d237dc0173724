"""Positions and channels of a window kernel in Triton: what depthwise convolutions and pools share.

A tile holds ``positions`` x ``channels``: rows ``rm`` are row-major positions of the output (all axes but the last), columns
``rn`` channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from redline.base.extents import may_be, nominal
from redline.kernels import texpr, tgemm
from redline.kernels.gpu import GpuTarget, next_power
from redline.kernels.problem import Operand


@dataclass(frozen=True)
class Schedule:
    """A tile of ``positions`` x ``channels`` for each program."""

    positions: int
    channels: int
    num_warps: int = 4


@dataclass(frozen=True)
class Axis:
    """One spatial axis of the window."""

    taps: int
    stride: int
    dilation: int
    pad: int


def schedules(out: Operand, target: GpuTarget) -> list[Schedule]:
    """Eight elements a thread where there is work for every processor, else fewer; neighbouring channels in one program."""
    rows, columns = nominal(prod(out.shape[:-1])), nominal(out.shape[-1])
    found: dict[Schedule, float] = {}
    for channels in (8, 16, 32, 64, 128):
        if channels > max(8, next_power(columns)):
            continue
        for elements, warps in ((512, 2), (1024, 4), (2048, 4), (256, 1), (4096, 8)):
            positions = elements // channels
            if positions > next_power(max(rows, 1)) or positions < 1:
                continue
            tiles = -(-rows // positions) * -(-columns // channels)
            waste = tiles * positions * channels / max(1, rows * columns)
            idle = max(1.0, 2 * target.processors / tiles)
            found[Schedule(positions, channels, warps)] = waste * idle * (1 + 8 / channels) * (1 + 256 / elements)
    best = sorted(found, key=lambda s: found[s])
    return best or [Schedule(1, next_power(columns), 1)]


def grid(out: Operand, s: Schedule) -> tuple[int, int, int]:
    return (-(-prod(out.shape[:-1]) // s.positions), -(-out.shape[-1] // s.channels), 1)


def head(out: Operand, s: Schedule) -> list[str]:
    return [
        f"rm = tl.program_id(0) * {s.positions} + tl.arange(0, {s.positions})",
        f"rn = tl.program_id(1) * {s.channels} + tl.arange(0, {s.channels})",
    ]


def coordinates(out: Operand) -> list[str]:
    return [*tgemm.row_coordinates("rm[:, None]", out.shape[:-1]), "rn[None, :]"]


def pointer(out: Operand) -> str:
    """The output's address, a whole tile of it where positions or channels alone would not make one."""
    return "(out0 + rm[:, None] * 0 + rn[None, :] * 0)" if 1 in (prod(out.shape[:-1]), out.shape[-1]) else "out0"


def guards(out: Operand, s: Schedule) -> dict[int, str]:
    """The conditions under which coordinates of a tile exist, by axis."""
    found: dict[int, str] = {}
    if prod(out.shape[:-1]) % s.positions != 0:
        condition = f"(rm[:, None] < {prod(out.shape[:-1])})"
        found.update(dict.fromkeys(range(len(out.shape) - 1), condition))
    if out.shape[-1] % s.channels != 0:
        found[len(out.shape) - 1] = f"(rn[None, :] < {out.shape[-1]})"
    return found


def taps(
    x: Operand, out: Operand, axes: Sequence[Axis], outside: dict[int, str], other: str
) -> tuple[list[str], list[tuple[int, str, str]]]:
    """Statements that come first, and for each tap its number, the text that loads it, and the condition that it is inside."""
    rank = len(axes)
    names = [f"i{a}" for a in range(rank + 2)]
    before = []
    for a, axis in enumerate(axes):
        before.append(f"x{a} = i{a + 1} * {axis.stride} - {axis.pad}" if out.shape[a + 1] != 1 else f"x{a} = {-axis.pad}")
    terms = [f"i0 * {x.strides[0]}"] if x.shape[0] != 1 else []
    terms += [f"x{a} * {x.strides[a + 1]}" for a in range(rank) if x.shape[a + 1] != 1]
    terms.append(f"{names[-1]} * {x.strides[-1]}")
    base = " + ".join(terms)
    if texpr.is_wide(x):
        base = base.replace("i0 *", "i0.to(tl.int64) *")
    before.append(f"x_at = arg0 + ({base})")
    for a, axis in enumerate(axes):
        for t in range(axis.taps):
            if _leaves(x, out, a, axis, t):
                at = f"x{a} + {t * axis.dilation}"
                before.append(f"in{a}_{t} = ({at} >= 0) & ({at} < {x.shape[a + 1]})")
    found = []
    for number, place in enumerate(product(*(range(axis.taps) for axis in axes))):
        shift = sum(t * axis.dilation * s for t, axis, s in zip(place, axes, x.strides[1:-1], strict=True))
        conditions = [f"in{a}_{t}" for a, t in enumerate(place) if _leaves(x, out, a, axes[a], t)]
        inside = " & ".join(conditions)
        mask = " & ".join([*dict.fromkeys(outside.values()), *conditions])
        found.append((number, texpr.load(f"x_at + {shift}", mask, other, x.dtype), inside))
    return before, found


def _leaves(x: Operand, out: Operand, a: int, axis: Axis, t: int) -> bool:
    first = t * axis.dilation - axis.pad
    return first < 0 or may_be(lambda: first + (out.shape[a + 1] - 1) * axis.stride >= x.shape[a + 1])
