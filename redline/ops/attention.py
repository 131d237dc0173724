"""Attention.

It has one plain form, which stays whole: q [B, H, Sq, D], k [B, H, Sk, D], v [B, H, Sk, Dv], an optional mask
(boolean or additive) that broadcasts to [B, H, Sq, Sk], and the attributes ``scale`` and ``is_causal`` (query i sees
keys 0..i). Everything else the standard allows (packed heads, shared key heads, caches, windows, lengths) decomposes
into it; a soft cap or the scores as an output decompose into products and a Softmax. A query that may see no key
answers zeros.
"""

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.base.shapes import Shape
from redline.ir import TensorType
from redline.ops.attention_form import (
    BIASED,
    CAPPED,
    PAST_KEY,
    PAST_VALUE,
    PROBABILITIES,
    RAW,
    Form,
    allowed_statically,
)  # fmt: skip
from redline.ops.attention_parts import decompose
from redline.ops.registry import Op, define
from redline.ops.rules import wide


def _infer(op: Op) -> list[TensorType]:
    form, q_type, v_type = Form(op), op.type(0), op.type(2)
    q, k, v = form.q, form.k, form.v
    if q[3] != k[3] or k[1:3] != v[1:3] or not q[0] == k[0] == v[0] or op.has(PAST_KEY) != op.has(PAST_VALUE):
        seen = f"queries {shapes.text(q)}, keys {shapes.text(k)}, values {shapes.text(v)}"
        raise ModelError(
            op.label, seen, "allowed: [B, H, Sq, D], [B, Hk, Sk, D], [B, Hk, Sk, Dv], and past keys with past values"
        )
    assert form.group
    key, value = (k[0], k[1], form.total, k[3]), (v[0], v[1], form.total, v[3])
    return [
        TensorType(q_type.dtype, form.answer), TensorType(op.type(1).dtype, key), TensorType(v_type.dtype, value),
        TensorType(q_type.dtype, (q[0], q[1], q[2], form.total)),
    ]  # fmt: skip


def _unpacked(x: np.ndarray, shape: Shape) -> np.ndarray:
    """[B, S, H * D] as [B, H, S, D]."""
    return x if x.ndim == 4 else wide(x).reshape(*x.shape[:2], shape[1], -1).transpose(0, 2, 1, 3)


def _bias(op: Op, mask: np.ndarray | None, lengths: np.ndarray | None) -> np.ndarray:
    """What is added to the scores: 0 or the mask where a key may be seen, -inf elsewhere. Broadcasts to the scores."""
    form = Form(op)
    queries, past, total = form.lengths
    bias = np.zeros((queries, total), np.float32)
    if mask is not None:
        mask = np.where(mask, 0, -np.inf) if mask.dtype == bool else wide(mask)
        if mask.shape[-1] not in (1, total):
            mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, total - mask.shape[-1])], constant_values=-np.inf)
        bias = bias + mask
    if lengths is None:
        allowed = allowed_statically(form, past)
        return bias if allowed is None else np.where(allowed, bias, -np.inf)
    for_each = [allowed_statically(form, int(length) - queries) for length in lengths]
    seen = np.stack([np.ones((queries, total), bool) if a is None else a for a in for_each])
    seen &= np.arange(total) < lengths.reshape(-1, 1, 1)
    return np.where(seen[:, None], bias, -np.inf)


def _reference(
    op: Op, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None, past_key: np.ndarray | None = None,
    past_value: np.ndarray | None = None, lengths: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    form = Form(op)
    q4, k4, v4 = _unpacked(q, form.q), _unpacked(k, form.k), _unpacked(v, form.v)
    if past_key is not None and past_value is not None:
        k4, v4 = np.concatenate([past_key, k4], axis=2), np.concatenate([past_value, v4], axis=2)
    keys, values = (np.repeat(wide(a), form.group, axis=1) for a in (k4, v4))
    stages = {RAW: (wide(q4) * form.scale) @ keys.transpose(0, 1, 3, 2)}
    cap = form.softcap
    stages[CAPPED] = np.tanh(stages[RAW] / cap) * cap if cap else stages[RAW]
    bias = _bias(op, mask, lengths)
    stages[BIASED] = stages[CAPPED] + bias
    scores = np.where(np.isneginf(bias), -np.inf, stages[BIASED])
    highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
    total = powers.sum(axis=-1, keepdims=True)
    stages[PROBABILITIES] = np.where(np.isneginf(highest), 0, powers / np.where(total == 0, 1, total))
    y = (stages[PROBABILITIES] @ values).astype(np.float32 if q.dtype.kind == "V" else values.dtype)
    if q.ndim == 3:
        y = y.transpose(0, 2, 1, 3).reshape(*q.shape[:2], -1)
    return y, k4, v4, stages[int(op.attr("qk_matmul_output_mode", RAW))]


define("Attention", _infer, _reference, decompose)
