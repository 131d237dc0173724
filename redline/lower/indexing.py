"""Operators that move data as expressions: which input element lands at given output coordinates.

An ``Accessor`` gives the element of an input at coordinates of that input, so a chain of moves and arithmetic becomes one
expression however it is nested. Indices that come from tensors are clamped to the data, so no input reads out of bounds.
"""

from collections.abc import Callable, Sequence

from redline.base import dtypes
from redline.base.shapes import StaticShape, contiguous_strides
from redline.kernels.expr import Expr, call, cast, integer, lit
from redline.ops import Op
from redline.ops.move import permutation
from redline.ops.select import diagonal
from redline.ops.slicing import slice_spans

Coordinates = tuple[Expr, ...]
Accessor = Callable[[Coordinates], Expr]
Build = Callable[[Op, Sequence[Accessor], Coordinates], Expr]


def _reshape(op: Op, reads: Sequence[Accessor], at: Coordinates, shape: StaticShape) -> Expr:
    linear: Expr = integer(0)
    for coordinate, stride in zip(at, contiguous_strides(shape), strict=True):
        linear = call("add", linear, call("mul", coordinate, integer(stride)))
    source = op.shape(0)
    index = [
        call("mod", call("floordiv", linear, integer(stride)), integer(extent)) if extent > 1 else integer(0)
        for extent, stride in zip(source, contiguous_strides(source), strict=True)
    ]
    return reads[0](tuple(index))


def _transpose(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    perm = permutation(op)
    return reads[0](tuple(at[perm.index(axis)] for axis in range(len(perm))))


def _slice(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    spans = slice_spans(op)
    index = (call("add", call("mul", i, integer(span.step)), integer(span.start)) for i, span in zip(at, spans, strict=True))
    return reads[0](tuple(index))


def _expand(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    shape = op.shape(0)
    inner = at[len(at) - len(shape) :]
    return reads[0](tuple(integer(0) if extent == 1 else index for index, extent in zip(inner, shape, strict=True)))


def _concat(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    """A chain of choices by the coordinate along the axis; each part is read at a coordinate clamped to it."""
    axis = op.axis(0, len(at))
    start = 0
    result: Expr | None = None
    for i, read in enumerate(reads):
        extent = op.shape(i)[axis]
        if extent == 0:
            continue
        inside = clamp(call("sub", at[axis], integer(start)), extent)
        part = read((*at[:axis], inside, *at[axis + 1 :]))
        first = _compare("ge", at[axis], integer(start))
        result = part if result is None else call("where", first, part, result)
        start += extent
    assert result is not None, "a concatenation of nothing has no elements to compute"
    return result


def _pad(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    shape, mode = op.shape(0), str(op.attr("mode", "constant"))
    axes = [axis % len(shape) for axis in op.ints(3)] if op.has(3) else list(range(len(shape)))
    pads = op.ints(1)
    index, inside = list(at), []
    for i, axis in enumerate(axes):
        begin, end, extent = pads[i], pads[i + len(axes)], shape[axis]
        if not (begin or end):
            continue
        source = call("sub", at[axis], integer(begin))
        if mode == "constant":
            inside += [_compare("ge", source, integer(0)), _compare("lt", source, integer(extent))]
        index[axis] = clamp(_PAD_SOURCE[mode](source, extent), extent)
    value = reads[0](tuple(index))
    if not inside:
        return value
    fill = reads[2](()) if op.has(2) else lit(0, value.dtype)
    condition = inside[0]
    for other in inside[1:]:
        condition = call("and", condition, other, dtype=dtypes.bool_)
    return call("where", condition, value, cast(fill, value.dtype))


def _reflect(source: Expr, extent: int) -> Expr:
    """... 2 1 | 0 1 2 | 1 0 ...: the position in a period of 2 * (extent - 1), folded at extent - 1."""
    if extent == 1:
        return integer(0)
    period = 2 * (extent - 1)
    folded = call("mod", source, integer(period))
    return call("min", folded, call("sub", integer(period), folded))


_PAD_SOURCE: dict[str, Callable[[Expr, int], Expr]] = {
    "constant": lambda source, extent: source,
    "edge": lambda source, extent: source,
    "reflect": _reflect,
    "wrap": lambda source, extent: call("mod", source, integer(extent)),
}


def _gather(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    axis = op.axis(0, len(op.shape(0)))
    count = len(op.shape(1))
    picked = tensor_index(reads[1](at[axis : axis + count]), op.shape(0)[axis])
    return reads[0]((*at[:axis], picked, *at[axis + count :]))


def _gather_elements(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    axis = op.axis(0, len(at))
    picked = tensor_index(reads[1](at), op.shape(0)[axis])
    return reads[0]((*at[:axis], picked, *at[axis + 1 :]))


def _gather_nd(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    shape, indices = op.shape(0), op.shape(1)
    batch, depth = int(op.attr("batch_dims", 0)), indices[-1]
    lead = at[: len(indices) - 1]
    picked = [tensor_index(reads[1]((*lead, integer(d))), shape[batch + d]) for d in range(depth)]
    return reads[0]((*at[:batch], *picked, *at[len(lead) :]))


def _trilu(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    border = call("add", at[-2], integer(diagonal(op)))
    keep = _compare("ge" if op.attr("upper", 1) else "le", at[-1], border)
    value = reads[0](at)
    return call("where", keep, value, lit(0, value.dtype))


def _reverse_sequence(op: Op, reads: Sequence[Accessor], at: Coordinates) -> Expr:
    time, batch = int(op.attr("time_axis", 0)), int(op.attr("batch_axis", 1))
    length = cast(reads[1]((at[batch],)), dtypes.int64)
    mirrored = call("sub", call("sub", length, integer(1)), at[time])
    source = call("where", _compare("lt", at[time], length), mirrored, at[time])
    return reads[0]((*at[:time], clamp(source, op.shape(0)[time]), *at[time + 1 :]))


def clamp(index: Expr, extent: int) -> Expr:
    """``index`` within an axis of ``extent``; 0 where that is empty, as one may be that a run finds."""
    return call("max", call("min", index, integer(extent - 1)), integer(0))


def tensor_index(index: Expr, extent: int) -> Expr:
    """An index read from a tensor: negative counts from the end; anything outside is clamped to the data."""
    return clamp(from_end(cast(index, dtypes.int64), extent), extent)


def from_end(index: Expr, extent: int) -> Expr:
    """A negative index counts from the end of an axis of ``extent``."""
    return call("where", _compare("lt", index, integer(0)), call("add", index, integer(extent)), index)


def _compare(fn: str, a: Expr, b: Expr) -> Expr:
    return call(fn, a, b, dtype=dtypes.bool_)


_BUILD: dict[str, Build] = {
    "Transpose": _transpose,
    "Slice": _slice,
    "Expand": _expand,
    "Concat": _concat,
    "Pad": _pad,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Trilu": _trilu,
    "ReverseSequence": _reverse_sequence,
}
_BUILD_SHAPED: dict[str, Callable[[Op, Sequence[Accessor], Coordinates, StaticShape], Expr]] = {
    "Reshape": _reshape,
}


def supported(name: str) -> bool:
    return name in _BUILD or name in _BUILD_SHAPED


def build(op: Op, reads: Sequence[Accessor], at: Coordinates, shape: StaticShape) -> Expr:
    """The element at ``at`` of the result, which has ``shape``."""
    if op.name in _BUILD_SHAPED:
        return _BUILD_SHAPED[op.name](op, reads, at, shape)
    return _BUILD[op.name](op, reads, at)
