"""Reductions as loop nests; what is reduced may be an expression that is computed on the way."""

from redline.base.shapes import size
from redline.kernels.expr import Acc, Expr, call, cast, index, lit
from redline.kernels.nest.problem import Problem, Reduction
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.ops import registry
from redline.ops.reduce import reduced_axes

KINDS = {"ReduceSum": "sum", "ReduceMean": "sum", "ReduceProd": "prod", "ReduceMax": "max", "ReduceMin": "min"}


def reduce(lowering: Lowering, chain: Chain) -> None:
    op = registry.view(chain.anchor)
    _reduce(lowering, chain, op, KINDS[op.name], reduced_axes(op))


def arg_extreme(lowering: Lowering, chain: Chain) -> None:
    op = registry.view(chain.anchor)
    kind = op.name.lower() + ("_last" if op.attr("select_last_index", 0) else "")
    _reduce(lowering, chain, op, kind, (op.axis(0, len(op.shape(0))),))


def _reduce(lowering: Lowering, chain: Chain, op: registry.Op, kind: str, axes: tuple[int, ...]) -> None:
    shape, dtype = op.shape(0), chain.anchor.types[0].dtype
    extents = tuple(shape[axis] for axis in axes)
    out = lowering.result(chain.last.out)
    reads = Reads()
    body = lowering.element(op.value(0), _data_coordinates(len(shape), axes, len(out.shape)), reads)
    reduction = Reduction(kind, extents)
    acc: Expr = Acc(reduction.acc_dtype(body.dtype))
    if op.name == "ReduceMean":
        count = size(extents)
        acc = call("div", acc, lit(float(count) if acc.dtype.is_float else count, acc.dtype))
    epilogue = lowering.epilogue(chain, cast(acc, dtype), reads)
    problem = Problem(reads.operands, (out.operand,), (body,), reduction, (epilogue,))
    lowering.emit("nest", problem, reads.views, [out], chain)


def _data_coordinates(rank: int, axes: tuple[int, ...], out_rank: int) -> tuple[Expr, ...]:
    """The element of the data at output coordinates i... and reduced coordinates r..., which follow them."""
    kept = iter(range(out_rank))
    found: list[Expr] = []
    for axis in range(rank):
        if axis in axes:
            found.append(index(out_rank + axes.index(axis)))
            if out_rank == rank:
                next(kept)
        else:
            found.append(index(next(kept)))
    return tuple(found)
