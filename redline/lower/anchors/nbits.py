"""MatMulNBits as a problem of the nbits family: codes one a byte, zero points as shifts where they are not the middle."""

import numpy as np

from redline.base.dtypes import float32
from redline.kernels.expr import Acc
from redline.kernels.nbits.problem import Problem
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.ops import registry
from redline.ops.nbits import weights_of

MIDDLE = 128  # of 8 bits: codes become signed


def matmul_nbits(lowering: Lowering, chain: Chain) -> None:
    op = registry.view(chain.anchor)
    weights = weights_of(op, op.const(1), op.const(2), op.const(3) if op.has(3) else None)
    codes, zeros = weights.codes, weights.zeros
    if weights.bits == 8:
        codes, zeros = (codes ^ MIDDLE).view(np.int8), zeros - MIDDLE
    shifted = bool(zeros.any())
    constants = [codes, weights.scales, *([weights.scales * zeros] if shifted else [])]
    reads = Reads([lowering.memory(op.value(0)), *map(lowering.constant, constants)])
    epilogue = lowering.epilogue(chain, Acc(float32), reads)
    out = lowering.result(chain.last.out)
    problem = Problem(reads.operands, out.operand, epilogue, weights.bits, weights.block, shifted)
    lowering.emit("nbits", problem, reads.views, [out], chain)
