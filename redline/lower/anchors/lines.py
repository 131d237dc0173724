"""Operators along one axis that order or accumulate: TopK as a sort, CumSum and CumProd as a scan."""

from redline.base.dtypes import int64
from redline.base.shapes import static
from redline.kernels import count as count_family
from redline.kernels import scan as scan_family
from redline.kernels import sort as sort_family
from redline.kernels.expr import Expr, cast, coordinates, integer
from redline.lower import views
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.lower.program import View
from redline.ops import registry
from redline.ops.order import scan_axis


def _axis_last(rank: int, axis: int) -> tuple[int, ...]:
    return (*(a for a in range(rank) if a != axis), axis)


def _moved(view: View, axis: int) -> View:
    return views.transpose(view, _axis_last(len(view.shape), axis))


def _graph_coordinates(rank: int, axis: int) -> tuple[Expr, ...]:
    """The graph's coordinates where the kernel has ``axis`` last."""
    order = _axis_last(rank, axis)
    return tuple(coordinates(rank)[order.index(a)] for a in range(rank))


def top_k(lowering: Lowering, chain: Chain) -> None:
    op, reads = registry.view(chain.anchor), Reads()
    shape = op.shape(0)
    axis = op.axis(-1, len(shape))
    key = lowering.element(op.value(0), _graph_coordinates(len(shape), axis), reads)
    values, indices = chain.anchor.outputs()[:2] if op.num_outputs > 1 else (chain.anchor.out, None)
    out = lowering.result(values)
    places = lowering.result(indices) if indices is not None else lowering.allocate(int64, static(values.shape))
    writes = [_moved(out, axis), _moved(places, axis)]
    if op.attr("slot") is not None:
        _find_count(lowering, chain, op, shape[axis])
    problem = sort_family.Problem(
        reads.operands, writes[0].operand, writes[1].operand, key, shape[axis], bool(op.attr("largest", 1)),
        op.attr("slot") is not None,
    )  # fmt: skip
    lowering.emit("sort", problem, reads.views, writes, chain)


def _find_count(lowering: Lowering, chain: Chain, op: registry.Op, most: int) -> None:
    """The step that says how many are asked for, where that is an input of the model's run."""
    reads = Reads()
    asked = lowering.element(op.value(1), (integer(0),) * len(op.type(1).shape), reads)
    seen = lowering.allocate(int64, (1,))
    problem = count_family.Problem(reads.operands, seen.operand, cast(asked, int64), most, int(op.attr("slot")))
    lowering.emit("count", problem, reads.views, [seen], chain)


def scan(lowering: Lowering, chain: Chain) -> None:
    op, reads = registry.view(chain.anchor), Reads()
    rank, axis = len(op.shape(0)), scan_axis(op)
    body = lowering.element(op.value(0), _graph_coordinates(rank, axis), reads)
    out = _moved(lowering.result(chain.last.out), axis)
    kind = "sum" if op.name == "CumSum" else "prod"
    problem = scan_family.Problem(
        kind, reads.operands, out.operand, body, bool(op.attr("exclusive", 0)), bool(op.attr("reverse", 0))
    )
    lowering.emit("scan", problem, reads.views, [out], chain)
