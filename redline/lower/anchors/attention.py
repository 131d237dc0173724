"""Attention in its plain form as a problem of the attention family; the mask becomes a part of the score."""

import math

from redline.base import dtypes
from redline.kernels.attention.problem import Problem, accumulator
from redline.kernels.expr import Acc, Expr, call, cast, coordinates, lit
from redline.lower.fusion import Chain
from redline.lower.lowering import Lowering, Reads
from redline.ops import registry
from redline.ops.attention_form import MASK, Form
from redline.ops.ragged_attention import LENGTHS, STARTS


def attention(lowering: Lowering, chain: Chain) -> None:
    """Query, key and value [B, H, S, D], and an optional mask that broadcasts to [B, H, Sq, Sk]."""
    op = registry.view(chain.anchor)
    form = Form(op)
    reads = Reads([lowering.attended_operand(op.value(i)) for i in range(3)])
    out = lowering.result(chain.last.out)
    score = _score(lowering, op, form.scale, reads)
    problem = Problem(reads.operands, out.operand, score, 0 if form.is_causal else None)
    lowering.emit("attention", problem, reads.views, [out], chain)


def ragged_attention(lowering: Lowering, chain: Chain) -> None:
    """The same within sequences that lie one behind the other; where they begin and how long they are is read last."""
    op = registry.view(chain.anchor)
    form = Form(op)
    reads = Reads([lowering.attended_operand(op.value(i)) for i in range(3)])
    out = lowering.result(chain.last.out)
    score = _score(lowering, op, form.scale, reads)
    reads.views += [lowering.memory(op.value(i)) for i in (STARTS, LENGTHS)]
    problem = Problem(reads.operands, out.operand, score, 0 if form.is_causal else None, is_ragged=True)
    lowering.emit("attention", problem, reads.views, [out], chain)


def _score(lowering: Lowering, op: registry.Op, scale: float, reads: Reads) -> Expr:
    """scale * dot + mask, or where(mask, scale * dot, -inf) of a boolean one."""
    acc = accumulator(reads.views[0].dtype)
    score = call("mul", Acc(acc), lit(scale, acc))
    if not op.has(MASK):
        return score
    mask = op.value(MASK)
    seen = lowering.broadcast_element(mask, coordinates(4), reads)
    if mask.dtype == dtypes.bool_:
        return call("where", seen, score, lit(-math.inf, acc))
    return call("add", score, cast(seen, acc))
