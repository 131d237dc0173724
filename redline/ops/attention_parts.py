"""Attention taken apart: everything that is not the plain form becomes the plain form, or products and a Softmax."""

import math
from functools import reduce

import numpy as np

from redline.base import dtypes, shapes
from redline.base.dtypes import DType
from redline.base.shapes import Shape
from redline.ir import Value, constant
from redline.ops.attention_form import (
    BIASED,
    CAPPED,
    LENGTHS,
    MASK,
    PAST_KEY,
    PAST_VALUE,
    PROBABILITIES,
    RAW,
    Form,
    allowed_statically,
)  # fmt: skip
from redline.ops.registry import Op, make
from redline.ops.rules import HALF, cast, ints, onnx_dtype, reshaped, scalar, transposed


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
    if not op.has(MASK) or form.has_full_mask:
        return op.value(MASK) if op.has(MASK) else None
    mask, total = op.value(MASK), form.lengths[2]
    short = shapes.static(mask.shape[-1:], op.label)[0]
    fill = constant(np.array(False)) if mask.dtype == dtypes.bool_ else scalar(-math.inf, mask.dtype)
    return make("Pad", mask, ints([0] * (2 * len(mask.shape) - 1) + [total - short]), fill)


def _allowed(form: Form) -> Value | None:
    """A boolean mask of what causality, the window and the lengths let a query see; None where they let it see all."""
    op = form.op
    queries, past, total = form.lengths
    if not op.has(LENGTHS):
        allowed = allowed_statically(form, past)
        return None if allowed is None else constant(allowed)
    length = make("Unsqueeze", op.value(LENGTHS), ints([1, 2, 3]))
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


def decompose(op: Op) -> tuple[Value, ...] | None:
    form = Form(op)
    if form.is_plain:
        return None
    q, k, v = (_unpack(op.value(i), shape) for i, shape in enumerate((form.q, form.k, form.v)))
    if op.has(PAST_KEY):
        k, v = make("Concat", op.value(PAST_KEY), k, axis=2), make("Concat", op.value(PAST_VALUE), v, axis=2)
    keys, values = _repeated(k, form.group), _repeated(v, form.group)
    is_simple = form.softcap == 0 and op.num_outputs < 4 and not op.attr("softmax_precision")
    if is_simple and form.is_causal and form.reach == (-1, -1) and form.past == 0 and not op.has(LENGTHS):
        mask, causal = _full_mask(form), 1
    else:
        mask, causal = _joined(_full_mask(form), _allowed(form)), 0
    if is_simple:
        y, scores = make("Attention", q, keys, values, mask, scale=form.scale, is_causal=causal), None
    else:
        y, scores = _products(form, q, keys, values, mask)
    if len(op.type(0).shape) == 3:
        y = reshaped(transposed(y, (0, 2, 1, 3)), form.answer)
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
    stages = {RAW: make("MatMul", make("Mul", q, scalar(form.scale, dtype)), transposed(k, (0, 1, 3, 2)))}
    stages[CAPPED] = stages[RAW]
    if form.softcap:
        cap = scalar(form.softcap, dtype)
        stages[CAPPED] = make("Mul", make("Tanh", make("Div", stages[RAW], cap)), cap)
    stages[BIASED] = stages[CAPPED]
    if mask is None:
        chances = cast(make("Softmax", cast(stages[BIASED], work), axis=-1), dtype)
    else:
        bias = cast(mask, dtype) if mask.dtype != dtypes.bool_ else _additive(mask, dtype)
        stages[BIASED] = make("Add", stages[CAPPED], bias)
        chances = cast(make("Softmax", cast(stages[BIASED], work), axis=-1), dtype)
        highest = make("ReduceMax", bias, ints([-1]), keepdims=1)
        unseen = make("Equal", highest, scalar(-math.inf, dtype))
        chances = make("Where", unseen, scalar(0, dtype), chances)
    stages[PROBABILITIES] = chances
    return make("MatMul", chances, v), stages[int(op.attr("qk_matmul_output_mode", RAW))]


def _softmax_dtype(op: Op, dtype: DType) -> DType:
    return onnx_dtype(op, "softmax_precision", dtypes.float32 if dtype in HALF else dtype)


def _additive(mask: Value, dtype: DType) -> Value:
    return make("Where", mask, scalar(0, dtype), scalar(-math.inf, dtype))
