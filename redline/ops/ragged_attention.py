"""Attention within each of several sequences that lie one behind the other, without padding between them.

RaggedAttention(q [1, H, T, D], k [1, H, T, D], v [1, H, T, Dv], mask or nothing, starts [N], lengths [N]) -> [1, H, T, Dv]:
token i of a sequence sees the tokens of the same sequence. ``mask`` broadcasts to [1, H, T, T] and says of each key what
Attention's does. Tokens of no sequence have no defined answer. Only passes/ragged.py makes this operator.
"""

from typing import Any

import numpy as np

from redline.ir import TensorType
from redline.ops.attention_form import MASK
from redline.ops.registry import Op, define, lookup

STARTS, LENGTHS = 4, 5


def _infer(op: Op) -> list[TensorType]:
    return [TensorType(op.type(0).dtype, (*op.type(0).shape[:3], op.type(2).shape[3]))]


def _reference(op: Op, q: Any, k: Any, v: Any, mask: Any, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    answer = np.zeros((*q.shape[:3], v.shape[3]), np.float32)
    attention = lookup("Attention")
    for start, length in zip(starts, lengths, strict=True):
        own = slice(int(start), int(start) + int(length))
        part = mask if mask is None or mask.shape[-1] == 1 else mask[..., own]
        within = Op("Attention", op.inputs[: MASK + 1], op.attrs, op.label, 1)
        answer[:, :, own] = attention.reference(within, q[:, :, own], k[:, :, own], v[:, :, own], part)[0]
    return answer


define("RaggedAttention", _infer, _reference)
