"""Attention and RotaryEmbedding.

Attention has one plain form, which stays whole: q [B, H, Sq, D], k [B, H, Sk, D], v [B, H, Sk, Dv], an optional mask
(boolean or additive) that broadcasts to [B, H, Sq, Sk], and the attributes ``scale`` and ``is_causal`` (query i sees
keys 0..i). Everything else the standard allows (packed heads, shared key heads, caches, windows, lengths) decomposes
into it; a soft cap or the scores as an output decompose into products and a Softmax. A query that may see no key
answers zeros.
"""

import math
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from redline.base import dtypes, shapes
from redline.base.dtypes import DType
from redline.base.errors import ModelError
from redline.base.shapes import Dim, Shape
from redline.ir import TensorType, Value, constant
from redline.ops.registry import Op, define, make
from redline.ops.rules import HALF, cast, ints, onnx_dtype, reshaped, scalar, transposed, wide

_MASK, _PAST_KEY, _PAST_VALUE, _LENGTHS = 3, 4, 5, 6
_RAW, _CAPPED, _BIASED, _PROBABILITIES = range(4)  # qk_matmul_output_mode


def _heads(op: Op, i: int) -> int:
    name = "q_num_heads" if i == 0 else "kv_num_heads"
    heads = int(op.attr(name, 0))
    if heads < 1:
        raise ModelError(op.label, f"Attention of packed heads without {name}", "say how many heads the last axis holds")
    return heads


def _shape4(op: Op, i: int) -> Shape:
    """Input ``i`` (0 to 2) as [B, heads, S, head size]."""
    shape = op.type(i).shape
    if len(shape) == 4:
        return shape
    if len(shape) != 3:
        raise ModelError(op.label, f"input {i} of Attention has rank {len(shape)}", "allowed: 3 and 4")
    heads, width = _heads(op, i), shapes.static(shape[2:], op.label)[0]
    if width % heads:
        raise ModelError(op.label, f"{heads} heads in a width of {width}", "the width must be a multiple")
    return (shape[0], heads, shape[1], width // heads)


@dataclass(frozen=True)
class Form:
    """What one Attention node is, read from its inputs and attributes. Lengths: of queries, of the past, of all keys."""

    op: Op

    @cached_property
    def q(self) -> Shape:
        return _shape4(self.op, 0)

    @cached_property
    def k(self) -> Shape:
        return _shape4(self.op, 1)

    @cached_property
    def v(self) -> Shape:
        return _shape4(self.op, 2)

    @property
    def past(self) -> Dim:
        return self.op.type(_PAST_KEY).shape[2] if self.op.has(_PAST_KEY) else 0

    @property
    def total(self) -> Dim:
        """Keys altogether. An open length stays open only without a past."""
        return self.k[2] if self.past == 0 else sum(shapes.static((self.past, self.k[2]), self.op.label))

    @property
    def lengths(self) -> tuple[int, int, int]:
        queries, past, total = shapes.static((self.q[2], self.past, self.total), self.op.label)
        return queries, past, total

    @property
    def group(self) -> int:
        """Query heads that share one key head."""
        heads, shared = shapes.static((self.q[1], self.k[1]), self.op.label)
        if shared < 1 or heads % shared:
            raise ModelError(self.op.label, f"{heads} query heads over {shared} key heads", "the first must be a multiple")
        return heads // shared

    @property
    def scale(self) -> float:
        given = self.op.attr("scale")
        return float(given) if given is not None else 1 / math.sqrt(shapes.static(self.q[3:], self.op.label)[0])

    @property
    def softcap(self) -> float:
        return float(self.op.attr("softcap", 0.0))

    @property
    def is_causal(self) -> bool:
        return bool(self.op.attr("is_causal", 0))

    @property
    def reach(self) -> tuple[int, int]:
        """Keys a query sees to its left and to its right; -1: all."""
        return int(self.op.attr("left_window_size", -1)), int(self.op.attr("right_window_size", -1))

    @property
    def has_full_mask(self) -> bool:
        return not self.op.has(_MASK) or self.op.type(_MASK).shape[-1:] in ((self.total,), (1,), ())

    @property
    def is_plain(self) -> bool:
        op = self.op
        return (
            all(len(op.type(i).shape) == 4 for i in range(3)) and self.group == 1 and self.softcap == 0
            and not any(op.has(i) for i in (_PAST_KEY, _PAST_VALUE, _LENGTHS)) and self.reach == (-1, -1)
            and op.num_outputs == 1 and self.has_full_mask and not op.attr("softmax_precision")
        )  # fmt: skip


def _infer(op: Op) -> list[TensorType]:
    form, q_type, v_type = Form(op), op.type(0), op.type(2)
    q, k, v = form.q, form.k, form.v
    if q[3] != k[3] or k[1:3] != v[1:3] or not q[0] == k[0] == v[0] or op.has(_PAST_KEY) != op.has(_PAST_VALUE):
        seen = f"queries {shapes.text(q)}, keys {shapes.text(k)}, values {shapes.text(v)}"
        raise ModelError(
            op.label, seen, "allowed: [B, H, Sq, D], [B, Hk, Sk, D], [B, Hk, Sk, Dv], and past keys with past values"
        )
    assert form.group
    y: Shape = (q[0], q[1], q[2], v[3])
    if len(q_type.shape) == 3:
        y = (q[0], q[2], math.prod(shapes.static((q[1], v[3]), op.label)))
    key, value = (k[0], k[1], form.total, k[3]), (v[0], v[1], form.total, v[3])
    return [
        TensorType(q_type.dtype, y), TensorType(op.type(1).dtype, key), TensorType(v_type.dtype, value),
        TensorType(q_type.dtype, (q[0], q[1], q[2], form.total)),
    ]  # fmt: skip


# --- Reference


def _unpacked(x: np.ndarray, shape: Shape) -> np.ndarray:
    """[B, S, H * D] as [B, H, S, D]."""
    return x if x.ndim == 4 else wide(x).reshape(*x.shape[:2], shape[1], -1).transpose(0, 2, 1, 3)


def _allowed_static(form: Form, offset: int) -> np.ndarray | None:
    """[Sq, Sk]: which keys causality and the window let a query see; None where they let it see all."""
    queries, _, total = form.lengths
    left, right = form.reach
    position, key = np.arange(queries)[:, None] + offset, np.arange(total)
    allowed = np.ones((queries, total), bool)
    if form.is_causal:
        allowed &= key <= position
    if left >= 0:
        allowed &= key >= position - left
    if right >= 0:
        allowed &= key <= position + right
    return None if allowed.all() else allowed


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
        allowed = _allowed_static(form, past)
        return bias if allowed is None else np.where(allowed, bias, -np.inf)
    for_each = [_allowed_static(form, int(length) - queries) for length in lengths]
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
    stages = {_RAW: (wide(q4) * form.scale) @ keys.transpose(0, 1, 3, 2)}
    cap = form.softcap
    stages[_CAPPED] = np.tanh(stages[_RAW] / cap) * cap if cap else stages[_RAW]
    bias = _bias(op, mask, lengths)
    stages[_BIASED] = stages[_CAPPED] + bias
    scores = np.where(np.isneginf(bias), -np.inf, stages[_BIASED])
    highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
    total = powers.sum(axis=-1, keepdims=True)
    stages[_PROBABILITIES] = np.where(np.isneginf(highest), 0, powers / np.where(total == 0, 1, total))
    y = (stages[_PROBABILITIES] @ values).astype(np.float32 if q.dtype.kind == "V" else values.dtype)
    if q.ndim == 3:
        y = y.transpose(0, 2, 1, 3).reshape(*q.shape[:2], -1)
    return y, k4, v4, stages[int(op.attr("qk_matmul_output_mode", _RAW))]


# --- Decomposition


def _unpack(value: Value, shape: Shape) -> Value:
    if len(value.shape) == 4:
        return value
    b, heads, length, size = shape
    return transposed(reshaped(value, (b, length, heads, size)), (0, 2, 1, 3))


def _repeated(value: Value, group: int) -> Value:
    """[B, Hk, S, D] with every head ``group`` times: [B, Hk * group, S, D]."""
    if group == 1:
        return value
    b, heads, length, size = shapes.static(value.shape, "Attention")
    wide_ = make("Expand", reshaped(value, (b, heads, 1, length, size)), ints([b, heads, group, length, size]))
    return reshaped(wide_, (b, heads * group, length, size))


def _full_mask(form: Form) -> Value | None:
    """The mask, padded to all keys: those beyond it are not seen."""
    op = form.op
    if not op.has(_MASK) or form.has_full_mask:
        return op.value(_MASK) if op.has(_MASK) else None
    mask, total = op.value(_MASK), form.lengths[2]
    short = shapes.static(mask.shape[-1:], op.label)[0]
    fill = constant(np.array(False)) if mask.dtype == dtypes.bool_ else scalar(-math.inf, mask.dtype)
    return make("Pad", mask, ints([0] * (2 * len(mask.shape) - 1) + [total - short]), fill)


def _allowed(form: Form) -> Value | None:
    """A boolean mask of what causality, the window and the lengths let a query see; None where they let it see all."""
    op = form.op
    queries, past, total = form.lengths
    if not op.has(_LENGTHS):
        allowed = _allowed_static(form, past)
        return None if allowed is None else constant(allowed)
    length = make("Unsqueeze", op.value(_LENGTHS), ints([1, 2, 3]))
    key = constant(np.arange(total, dtype=np.int64))
    offset = scalar(queries, dtypes.int64)
    position = make("Sub", make("Add", constant(np.arange(queries, dtype=np.int64)[:, None]), length), offset)
    left, right = form.reach
    bounds = [make("Less", key, length)]
    if form.is_causal:
        bounds.append(make("LessOrEqual", key, position))
    if left >= 0:
        bounds.append(make("GreaterOrEqual", key, make("Sub", position, scalar(left, dtypes.int64))))
    if right >= 0:
        bounds.append(make("LessOrEqual", key, make("Add", position, scalar(right, dtypes.int64))))
    return reduce(lambda a, b: make("And", a, b), bounds)


def _joined(mask: Value | None, allowed: Value | None) -> Value | None:
    """One mask from both: boolean while both are, else additive."""
    if mask is None or allowed is None:
        return mask if allowed is None else allowed
    if mask.dtype == dtypes.bool_:
        return make("And", mask, allowed)
    return make("Where", allowed, mask, scalar(-math.inf, mask.dtype))


def _decompose(op: Op) -> tuple[Value, ...] | None:
    form = Form(op)
    if form.is_plain:
        return None
    q, k, v = (_unpack(op.value(i), shape) for i, shape in enumerate((form.q, form.k, form.v)))
    if op.has(_PAST_KEY):
        k, v = make("Concat", op.value(_PAST_KEY), k, axis=2), make("Concat", op.value(_PAST_VALUE), v, axis=2)
    keys, values = _repeated(k, form.group), _repeated(v, form.group)
    is_simple = form.softcap == 0 and op.num_outputs < 4 and not op.attr("softmax_precision")
    if is_simple and form.is_causal and form.reach == (-1, -1) and form.past == 0 and not op.has(_LENGTHS):
        mask, causal = _full_mask(form), 1
    else:
        mask, causal = _joined(_full_mask(form), _allowed(form)), 0
    if is_simple:
        y, scores = make("Attention", q, keys, values, mask, scale=form.scale, is_causal=causal), None
    else:
        y, scores = _products(form, q, keys, values, mask)
    if len(op.type(0).shape) == 3:
        y = reshaped(transposed(y, (0, 2, 1, 3)), _infer(op)[0].shape)
    return tuple(value for value in (y, k, v, scores)[: op.num_outputs] if value is not None)


def as_products(op: Op) -> Value:
    """A plain Attention as two MatMuls and a Softmax, for targets that have no kernel of its own for it."""
    form = Form(op)
    mask = _joined(_full_mask(form), _allowed(form))
    return _products(form, op.value(0), op.value(1), op.value(2), mask)[0]


def _products(form: Form, q: Value, k: Value, v: Value, mask: Value | None) -> tuple[Value, Value]:
    """The answer, and the scores at the stage that ``qk_matmul_output_mode`` asks for."""
    dtype, op = q.dtype, form.op
    work = _softmax_dtype(op, dtype)
    stages = {_RAW: make("MatMul", make("Mul", q, scalar(form.scale, dtype)), transposed(k, (0, 1, 3, 2)))}
    stages[_CAPPED] = stages[_RAW]
    if form.softcap:
        cap = scalar(form.softcap, dtype)
        stages[_CAPPED] = make("Mul", make("Tanh", make("Div", stages[_RAW], cap)), cap)
    stages[_BIASED] = stages[_CAPPED]
    if mask is None:
        chances = cast(make("Softmax", cast(stages[_BIASED], work), axis=-1), dtype)
    else:
        bias = cast(mask, dtype) if mask.dtype != dtypes.bool_ else _additive(mask, dtype)
        stages[_BIASED] = make("Add", stages[_CAPPED], bias)
        chances = cast(make("Softmax", cast(stages[_BIASED], work), axis=-1), dtype)
        highest = make("ReduceMax", bias, ints([-1]), keepdims=1)
        unseen = make("Equal", highest, scalar(-math.inf, dtype))
        chances = make("Where", unseen, scalar(0, dtype), chances)
    stages[_PROBABILITIES] = chances
    return make("MatMul", chances, v), stages[int(op.attr("qk_matmul_output_mode", _RAW))]


def _softmax_dtype(op: Op, dtype: DType) -> DType:
    return onnx_dtype(op, "softmax_precision", dtypes.float32 if dtype in HALF else dtype)


def _additive(mask: Value, dtype: DType) -> Value:
    return make("Where", mask, scalar(0, dtype), scalar(-math.inf, dtype))


define("Attention", _infer, _reference, _decompose)
