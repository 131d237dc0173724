"""ConvTranspose as ordinary convolutions, one for every phase of the output's coordinates modulo the strides.

An output o of phase r (o + pad = s t + r) sees the taps k with (k d - r) divisible by s, at input t - (k d - r) / s. With
the taps in reverse order that is a convolution of stride 1 whose result is every s-th output.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from redline.base.dtypes import DType
from redline.base.errors import UnsupportedError
from redline.kernels import nest
from redline.kernels.conv.problem import Problem
from redline.kernels.expr import Acc, Expr, call, cast, index, integer, lit
from redline.kernels.tile import accumulator
from redline.lower import views
from redline.lower.anchors.layout import channels_last
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.lower.program import View
from redline.ops import registry
from redline.ops.layout import is_channels_last
from redline.ops.window import Window, explicit_window


@dataclass(frozen=True)
class Phase:
    """One residue along one axis: outputs ``first, first + stride, ...``, ``count`` of them, and the taps that they see.

    ``taps`` in the order of rising input positions, ``dilation`` apart; ``pads``: how far they reach outside the input.
    """

    first: int
    count: int
    taps: tuple[int, ...]
    dilation: int
    pads: tuple[int, int]


def phases(extent: int, window: Window, axis: int) -> list[Phase]:
    """The phases along one axis of an input of ``extent`` elements."""
    stride, step, pad = window.strides[axis], window.dilations[axis], window.pads_begin[axis]
    found = []
    for residue in range(stride):
        first = (residue - pad) % stride
        count = -(-(window.output[axis] - first) // stride)
        taps = [k for k in reversed(range(window.kernel[axis])) if (k * step - residue) % stride == 0]
        if count <= 0:
            continue
        start = (first + pad - residue) // stride  # t of the first output
        reach = [(k * step - residue) // stride for k in taps]
        pads = (reach[0] - start, start + count - 1 - reach[-1] - (extent - 1)) if taps else (0, 0)
        found.append(Phase(first, count, tuple(taps), step // math.gcd(step, stride), pads))
    return found


def conv_transpose(lowering: Lowering, chain: Chain) -> None:
    op = registry.view(chain.anchor)
    x = channels_last(op, lowering.operand(op.value(0)))
    window, filters = explicit_window(op), _filters(lowering, op, x.dtype)
    out = channels_last(op, lowering.result(chain.last.out))
    axes = [phases(extent, window, axis) for axis, extent in enumerate(x.shape[1:-1])]
    for parts in itertools.product(*axes):
        _phase(lowering, chain, op, (x, out), filters, window, parts)


def _filters(lowering: Lowering, op: registry.Op, dtype: DType) -> View:
    """The weights [C, M/g, taps...] as [M, C/g, taps...]."""
    groups, value = int(op.attr("group", 1)), op.value(1)
    c, m, *taps = op.shape(1)
    if groups == 1:
        return views.transpose(lowering.operand(value), (1, 0, *range(2, 2 + len(taps))))
    if value.array is None:
        seen = f"ConvTranspose in {groups} groups with weights computed at run time"
        raise UnsupportedError(op.label, seen, "the weights must be constant, or the groups one")
    split = value.array.reshape(groups, c // groups, m, *taps).swapaxes(1, 2)
    return lowering.constant(split.reshape(groups * m, c // groups, *taps).astype(dtype.numpy))


def _phase(
    lowering: Lowering, chain: Chain, op: registry.Op, operands: tuple[View, View], filters: View, window: Window,
    parts: Sequence[Phase],
) -> None:  # fmt: skip
    x, out = operands
    rank = len(x.shape)
    for axis, part in enumerate(parts, start=1):
        out = views.narrow(out, axis, part.first, part.count, window.strides[axis - 1])
    at = _coordinates(op, rank, window, parts)
    if not all(part.taps for part in parts):
        _without_taps(lowering, chain, op, out, at)
        return
    for axis, part in enumerate(parts, start=1):
        x = _cropped(x, axis, part)
        filters = _taken(filters, axis + 1, part.taps)
    pads = [tuple(max(0, part.pads[side]) for part in parts) for side in (0, 1)]
    reads = Reads([x, filters])
    acc: Expr = Acc(accumulator(x.dtype))
    epilogue = lowering.epilogue(chain, _biased(lowering, op, acc, rank, reads), reads, at)
    dilations = tuple(part.dilation for part in parts)
    problem = Problem(
        reads.operands[0], reads.operands[1], out.operand, epilogue, reads.operands[2:], (1,) * len(parts), dilations,
        (*pads[0], *pads[1]), int(op.attr("group", 1)),
    )  # fmt: skip
    lowering.emit("conv", problem, reads.views, [out], chain)


def _cropped(x: View, axis: int, part: Phase) -> View:
    """``x`` without the elements that no output of the phase sees: negative padding."""
    begin, end = (max(0, -pad) for pad in part.pads)
    return views.narrow(x, axis, begin, x.shape[axis] - begin - end)


def _taken(filters: View, axis: int, taps: Sequence[int]) -> View:
    """The taps of a phase, which are evenly spaced and fall."""
    step = taps[1] - taps[0] if len(taps) > 1 else 1
    return views.narrow(filters, axis, taps[0], len(taps), step)


def _coordinates(op: registry.Op, rank: int, window: Window, parts: Sequence[Phase]) -> tuple[Expr, ...]:
    """The graph's coordinates of the output in terms of those of the phase's kernel."""
    spatial = [
        call("add", call("mul", index(axis), integer(stride)), integer(part.first))
        for axis, (part, stride) in enumerate(zip(parts, window.strides, strict=True), start=1)
    ]
    n, c = index(0), index(rank - 1)
    return (n, *spatial, c) if is_channels_last(op) else (n, c, *spatial)


def _biased(lowering: Lowering, op: registry.Op, value: Expr, rank: int, reads: Reads) -> Expr:
    return call("add", value, lowering.element(op.value(2), (index(rank - 1),), reads)) if op.has(2) else value


def _without_taps(lowering: Lowering, chain: Chain, op: registry.Op, out: View, at: tuple[Expr, ...]) -> None:
    """Outputs that no tap reaches are the bias alone."""
    reads = Reads()
    zero = lit(0, accumulator(op.type(0).dtype))
    body = lowering.epilogue(chain, _biased(lowering, op, zero, len(out.shape), reads), reads, at)
    problem = nest.Problem(reads.operands, (out.operand,), (cast(body, out.dtype),))
    lowering.emit("nest", problem, reads.views, [out], chain)
