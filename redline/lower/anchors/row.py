"""Softmax and the normalisations along the last axis as problems of the row family."""

from redline.base.dtypes import float32, float64
from redline.kernels.expr import Acc, Expr, call, cast, coordinates
from redline.kernels.row.problem import Problem
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.ops import registry
from redline.ops.moments import epsilon_of

KINDS = {
    "Softmax": "softmax", "LogSoftmax": "log_softmax", "LayerNormalization": "layer_norm", "RMSNormalization": "rms_norm",
}  # fmt: skip


def row(lowering: Lowering, chain: Chain) -> None:
    """The operator's input is computed on the way; scale and bias join the epilogue."""
    op = registry.view(chain.anchor)
    out = lowering.result(chain.last.out)
    rank = len(out.shape)
    reads = Reads()
    element = lowering.element(op.value(0), coordinates(rank), reads)
    work = float64 if element.dtype == float64 else float32
    result = _scaled(lowering, op, Acc(work), reads)
    epilogue = lowering.epilogue(chain, result, reads)
    epsilon = epsilon_of(op) if op.name.endswith("Normalization") else 0.0
    problem = Problem(KINDS[op.name], reads.operands, (out.operand,), cast(element, work), epilogue, epsilon)
    lowering.emit("row", problem, reads.views, [out], chain)


def _scaled(lowering: Lowering, op: registry.Op, value: Expr, reads: Reads) -> Expr:
    """Times input 1, plus input 2: scale and bias of a normalisation."""
    for i, function in ((1, "mul"), (2, "add")):
        if op.has(i):
            other = lowering.broadcast_element(op.value(i), coordinates(len(op.type(0).shape)), reads)
            value = call(function, value, cast(other, value.dtype))
    return value
