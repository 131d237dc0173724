"""ScatterElements, ScatterND and TensorScatter as problems of the scatter family. Negative indices count from the end."""

from collections.abc import Sequence

from redline.base.dtypes import int64
from redline.base.shapes import StaticShape, static
from redline.kernels import scatter as family
from redline.kernels.expr import Expr, call, cast, coordinates, index, integer
from redline.lower.fusion import Chain
from redline.lower.indexing import from_end
from redline.lower.lowering import Lowering, Reads
from redline.ops import registry


def scatter_elements(lowering: Lowering, chain: Chain) -> None:
    """out[..., indices[u], ...] = updates[u]"""
    op, reads = registry.view(chain.anchor), Reads()
    shape, extents = op.shape(0), op.shape(1)
    axis, at = op.axis(0, len(shape)), coordinates(len(extents))
    place = list(at)
    place[axis] = from_end(cast(lowering.element(op.value(1), at, reads), int64), shape[axis])
    _emit(lowering, chain, op, reads, extents, place, lowering.element(op.value(2), at, reads))


def scatter_nd(lowering: Lowering, chain: Chain) -> None:
    """out[indices[u, :], v] = updates[u, v]"""
    op, reads = registry.view(chain.anchor), Reads()
    shape, indices, extents = op.shape(0), op.shape(1), op.shape(2)
    outer, depth, at = len(indices) - 1, indices[-1], coordinates(len(extents))
    place = [
        from_end(cast(lowering.element(op.value(1), (*at[:outer], integer(d)), reads), int64), shape[d]) for d in range(depth)
    ]
    _emit(lowering, chain, op, reads, extents, [*place, *at[outer:]], lowering.element(op.value(2), at, reads))


def tensor_scatter(lowering: Lowering, chain: Chain) -> None:
    """out[b, ..., begins[b] + j, ...] = update[b, ..., j, ...]"""
    op, reads = registry.view(chain.anchor), Reads()
    shape, extents = op.shape(0), op.shape(1)
    axis, place = op.axis(-2, len(shape)), list(coordinates(len(extents)))
    if op.has(2):
        place[axis] = call("add", index(axis), cast(lowering.element(op.value(2), (index(0),), reads), int64))
    if op.attr("mode", "linear") == "circular":
        place[axis] = call("mod", place[axis], integer(shape[axis]))
    _emit(lowering, chain, op, reads, extents, place, lowering.element(op.value(1), coordinates(len(extents)), reads))


def _emit(
    lowering: Lowering, chain: Chain, op: registry.Op, reads: Reads, extents: StaticShape, place: Sequence[Expr], value: Expr
) -> None:
    out = lowering.result(chain.last.out)
    initial = lowering.element(op.value(0), coordinates(len(static(out.shape))), reads)
    fold = str(op.attr("reduction", "none"))
    problem = family.Problem(reads.operands, out.operand, initial, extents, tuple(place), value, fold)
    lowering.emit("scatter", problem, reads.views, [out], chain)
