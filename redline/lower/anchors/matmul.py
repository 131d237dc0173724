"""MatMul as a problem of the matmul family."""

from redline.base.shapes import broadcast, static
from redline.kernels.expr import Acc
from redline.kernels.matmul.problem import Problem
from redline.kernels.tile import accumulator
from redline.lower import views
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads


def matmul(lowering: Lowering, chain: Chain) -> None:
    """[..., M, K] @ [..., K, N]; vectors have become matrices before."""
    a, b = (lowering.operand(value) for value in chain.anchor.inputs[:2] if value is not None)
    batch = static(broadcast(a.shape[:-2], b.shape[:-2]))
    a, b = (views.expand(view, (*batch, *view.shape[-2:])) for view in (a, b))
    reads = Reads([a, b])
    epilogue = lowering.epilogue(chain, Acc(accumulator(a.dtype)), reads)
    out = lowering.result(chain.last.out)
    problem = Problem(reads.operands[0], reads.operands[1], out.operand, epilogue, reads.operands[2:])
    lowering.emit("matmul", problem, reads.views, [out], chain)
