"""Operators that find an extent: NonMaxSuppression, and where a condition holds (NonZero, Compress)."""

from redline.base.dtypes import float32, int64
from redline.kernels import collect, select, suppress
from redline.kernels.expr import Expr, cast, coordinates, integer, lit
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.ops import registry
from redline.ops.detect import kept_per_class


def true_positions(lowering: Lowering, chain: Chain) -> None:
    op, reads = registry.view(chain.anchor), Reads()
    condition = lowering.element(op.value(0), coordinates(1), reads)
    out = lowering.result(chain.anchor.out)
    problem = select.Problem(reads.operands, out.operand, condition, op.shape(0)[0], int(op.attr("slot")))
    lowering.emit("select", problem, reads.views, [out], chain)


def non_max_suppression(lowering: Lowering, chain: Chain) -> None:
    """Which boxes stay, the classes side by side; then their rows one after the other."""
    op = registry.view(chain.anchor)
    boxes, scores = lowering.memory(op.value(0)), lowering.memory(op.value(1))
    reads = Reads([boxes, scores])

    def number(i: int) -> Expr:
        return lowering.element(op.value(i), (integer(0),) * len(op.type(i).shape), reads)

    limit = kept_per_class(op)
    kept = lowering.allocate(int64, (*scores.shape[:2], limit))
    counts = lowering.allocate(int64, scores.shape[:2])
    most = integer(limit) if op.is_const(2) else cast(number(2), int64)
    overlap = cast(number(3), float32) if op.has(3) else lit(0.0, float32)
    threshold = cast(number(4), float32) if op.has(4) else None
    centred = bool(op.attr("center_point_box", 0))
    problem = suppress.Problem(reads.operands, kept.operand, counts.operand, most, overlap, threshold, centred)
    lowering.emit("suppress", problem, reads.views, [kept, counts], chain)
    out = lowering.result(chain.anchor.out)
    gathered = collect.Problem(kept.operand, counts.operand, out.operand, int(op.attr("slot")))
    lowering.emit("collect", gathered, [kept, counts], [out], chain)
