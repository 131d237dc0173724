"""What an attention kernel computes:

    s(b, h, i, j)    = score(sum over d of query[b, h, i, d] * key[b, g, j, d];  b, h, i, j)
    out[b, h, i, :]  = sum over j of softmax over j of s(b, h, i, j) * value[b, g, j, :]

where g = h // (heads / kv_heads) (grouped-query attention). ``score`` is an expression over ``Acc(0)``, the dot product:
the scale, masks and biases that further reads hold, a soft cap. A row in which every score is -inf gives zeros.

Ragged: B is 1, and the tokens are those of several sequences, one behind the other. The last two reads, starts [N] and
lengths [N], say which; j then runs over the tokens of the sequence of i, and what is of no sequence is not written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import RedlineError
from redline.base.shapes import StaticShape, size
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Acc, Call, Expr, Lit, call, lit
from redline.kernels.problem import Operand


@dataclass(frozen=True)
class Problem:
    """``reads``: query [B, H, Sq, D], key [B, Hkv, Sk, D], value [B, Hkv, Sk, Dv], then what ``score`` loads.

    ``score`` has the type ``acc``. ``causal``: key j is seen by query i only if j <= i + causal; None: all are.
    """

    reads: tuple[Operand, ...]
    out: Operand  # [B, H, Sq, Dv]
    score: Expr
    causal: int | None = None
    is_ragged: bool = False

    def __post_init__(self) -> None:
        shapes = [operand.shape for operand in (*self.reads[:3], self.out)]
        if len(self.reads) < 3 or any(len(shape) != 4 for shape in shapes):
            raise RedlineError("attention", f"operands of shapes {shapes}", "allowed: query, key, value, out of rank 4")
        (b, h, q, d), (kb, kh, k, kd), (vb, vh, vk, dv), out = shapes
        if not (b == kb == vb and kh == vh and h % max(kh, 1) == 0 and d == kd and k == vk > 0 and out == (b, h, q, dv)):
            raise RedlineError("attention", f"operands of shapes {shapes} do not fit together")
        if len({operand.dtype for operand in self.reads[:3]}) != 1 or not self.acc.is_float:
            types = [operand.dtype.name for operand in self.reads[:3]]
            raise RedlineError("attention", f"operands of types {types}", "query, key and value have one floating type")
        if self.score.dtype != self.acc:
            raise RedlineError("attention", f"a score of type {self.score.dtype}", f"it must be {self.acc}")

    @property
    def acc(self) -> DType:
        """The type of scores and sums."""
        return accumulator(self.reads[0].dtype)

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def extents(self) -> StaticShape:
        """(B, H, Sq, Sk): the coordinates of a score."""
        return (*self.reads[0].shape[:3], self.reads[1].shape[2])

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.reads[0].shape[1] // max(self.reads[1].shape[1], 1)

    @property
    def flops(self) -> int:
        if self.is_ragged:
            return 0  # the data decide
        return 2 * size(self.extents) * (self.reads[0].shape[3] + self.reads[2].shape[3])


def accumulator(dtype: DType) -> DType:
    return dtypes.float32 if dtype.is_float and dtype.size < 4 else dtype


def scaled(scale: float, dtype: DType = dtypes.float32) -> Expr:
    """The plain score: the dot product times ``scale``; ``dtype`` is that of query, key and value."""
    acc = accumulator(dtype)
    return call("mul", Acc(acc), lit(scale, acc))


def plain_scale(p: Problem) -> float | None:
    """The scale of a score that is the dot product times a positive number and nothing else."""
    e = p.score
    if isinstance(e, Acc):
        return 1.0
    if isinstance(e, Call) and e.fn == "mul" and isinstance(e.args[0], Acc) and isinstance(e.args[1], Lit):
        return float(e.args[1].value) if e.args[1].value > 0 else None
    return None


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The definition, with numpy."""
    acc = problem.acc.numpy
    query, key, value = (array.astype(np.float64) for array in arrays[:3])
    key, value = (np.repeat(array, problem.group, axis=1) for array in (key, value))
    with np.errstate(all="ignore"):
        dots = np.einsum("bhid,bhjd->bhij", query, key).astype(acc)
        scores = evaluate(problem.score, arrays, problem.extents, [dots]).astype(np.float64)
        if problem.causal is not None:
            i, j = np.ogrid[: scores.shape[2], : scores.shape[3]]
            scores = np.where(j <= i + problem.causal, scores, -np.inf)
        if problem.is_ragged:
            scores = np.where(_together(arrays[-2], arrays[-1], scores.shape[2]), scores, -np.inf)
        highest = scores.max(-1, keepdims=True, initial=-np.inf)
        powers = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
        total = powers.sum(-1, keepdims=True)
        result = np.einsum("bhij,bhjd->bhid", powers / np.where(total == 0, 1, total), value)
    return (result.astype(problem.out.dtype.numpy),)


def _together(starts: np.ndarray, lengths: np.ndarray, tokens: int) -> np.ndarray:
    """[T, T]: whether two tokens are of the same sequence."""
    number = np.full(tokens, -1)
    for sequence, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        number[start : start + length] = sequence
    return (number[:, None] == number) & (number >= 0)
