"""Pools: of the pool family where it has them, else loop nests over the window."""

import math
from collections.abc import Sequence

from redline.base import dtypes
from redline.base.dtypes import float32, float64
from redline.ir import Value
from redline.kernels import nest
from redline.kernels import pool as kernel
from redline.kernels.expr import Acc, Expr, call, cast, index, integer, lit
from redline.kernels.functions import compute_type, extreme
from redline.kernels.nest.problem import Reduction
from redline.lower.anchors.layout import channels_last, graph_coordinates
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.ops import registry
from redline.ops.layout import spatial_axes
from redline.ops.window import Window, explicit_window

KINDS = {"MaxPool": "max", "AveragePool": "average"}


def pool(lowering: Lowering, chain: Chain) -> None:
    """MaxPool and AveragePool; the places of the maxima, where they are asked for, are a kernel of their own."""
    op = registry.view(chain.anchor)
    x = channels_last(op, lowering.memory(_data(op)))
    reads = Reads([x])
    acc = _accumulator(op)
    epilogue = lowering.epilogue(chain, Acc(acc), reads, graph_coordinates(op, len(x.shape)))
    out = channels_last(op, lowering.result(chain.last.out))
    window = explicit_window(op)
    windows = tuple(
        kernel.Window(*each)
        for each in zip(
            window.kernel, window.strides, window.dilations, window.pads_begin, window.pads_end, strict=True
        )
    )  # fmt: skip
    problem = kernel.Problem(
        KINDS[op.name], reads.operands, out.operand, windows, epilogue, bool(op.attr("count_include_pad", 0))
    )
    lowering.emit("pool", problem, reads.views, [out], chain)
    if op.num_outputs > 1:
        _indices(lowering, chain, op, window)


def _data(op: registry.Op) -> Value:
    """What is pooled; an average of small integers is taken from the integers themselves."""
    x = op.value(0)
    if op.name == "AveragePool" and x.op == "Cast" and x.node.inputs[0] is not None:
        source = x.node.inputs[0]
        return source if source.dtype.is_integer and source.dtype.size == 1 and x.dtype == float32 else x
    return x


def _accumulator(op: registry.Op) -> dtypes.DType:
    dtype = op.type(0).dtype
    if op.name == "AveragePool":
        return float64 if dtype == float64 else float32
    return compute_type(dtype)


def _indices(lowering: Lowering, chain: Chain, op: registry.Op, window: Window) -> None:
    """The flat place in the tensor of each window's first largest element."""
    reads, rank = Reads(), len(op.type(0).shape)
    places, inside = _taps(op, window, [index(rank + a) for a in range(rank - 2)])
    element = lowering.element(op.value(0), places, reads)
    body = call("where", inside, element, lit(extreme(element.dtype, lowest=True), element.dtype))
    reduction = Reduction("argmax", window.kernel)
    tap, taps = Acc(dtypes.int64), list[Expr]()
    for axis in range(rank - 2):
        inner = math.prod(window.kernel[axis + 1 :])
        at = call("mod", call("floordiv", tap, integer(inner)), integer(window.kernel[axis]))
        taps.append(at)
    places, _ = _taps(op, window, taps)
    shape = op.shape(0)
    order = list(range(2, rank))
    flat: Expr = call("add", call("mul", places[0], integer(shape[1])), places[1])
    flat = call("mul", flat, integer(math.prod(shape[2:])))
    step = 1
    for axis in order if op.attr("storage_order", 0) else reversed(order):
        flat = call("add", flat, call("mul", places[axis], integer(step)))
        step *= shape[axis]
    out = lowering.result(chain.anchor.outputs()[1])
    problem = nest.Problem(reads.operands, (out.operand,), (body,), reduction, (flat,))
    lowering.emit("nest", problem, reads.views, [out], chain)


def lp_pool(lowering: Lowering, chain: Chain) -> None:
    """(sum over the window of |x|^p)^(1/p)"""
    op, reads = registry.view(chain.anchor), Reads()
    rank, p = len(op.type(0).shape), int(op.attr("p", 2))
    window = explicit_window(op)
    places, inside = _taps(op, window, [index(rank + a) for a in range(rank - 2)])
    element = lowering.element(op.value(0), places, reads)
    element = cast(element, compute_type(element.dtype))
    size = call("abs", element)
    power = call("mul", size, size) if p == 2 else size if p == 1 else call("pow", size, lit(float(p), size.dtype))
    body = call("where", inside, power, lit(0.0, power.dtype))
    total = Acc(power.dtype)
    root = call("sqrt", total) if p == 2 else total if p == 1 else call("pow", total, lit(1 / p, total.dtype))
    out = lowering.result(chain.last.out)
    epilogue = lowering.epilogue(chain, root, reads)
    problem = nest.Problem(reads.operands, (out.operand,), (body,), Reduction("sum", window.kernel), (epilogue,))
    lowering.emit("nest", problem, reads.views, [out], chain)


def _taps(op: registry.Op, window: Window, taps: Sequence[Expr]) -> tuple[list[Expr], Expr]:
    """Where each tap of the window at the graph's own coordinates reads, and whether that lies inside the tensor."""
    shape = op.shape(0)
    places: list[Expr] = [index(axis) for axis in range(len(shape))]
    inside: Expr = lit(True, dtypes.bool_)
    for i, (axis, tap) in enumerate(zip(spatial_axes(op, len(shape)), taps, strict=True)):
        start = call("sub", call("mul", index(axis), integer(window.strides[i])), integer(window.pads_begin[i]))
        places[axis] = call("add", start, call("mul", tap, integer(window.dilations[i])))
        for fn, bound in (("ge", 0), ("lt", shape[axis])):
            inside = call("and", inside, call(fn, places[axis], integer(bound), dtype=dtypes.bool_), dtype=dtypes.bool_)
    return places, inside
