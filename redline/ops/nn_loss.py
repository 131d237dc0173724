"""Losses: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss over [N, C, d...] with class indices [N, d...]."""

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import ModelError
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import cast, choice, ints, scalar, wide

_NO_CLASS = -1


def _infer(op: Op) -> list[TensorType]:
    data, target = op.type(0), op.type(1).shape
    if len(data.shape) < 2 or target != (data.shape[0], *data.shape[2:]):
        seen = f"scores {shapes.text(data.shape)} and targets {shapes.text(target)}"
        raise ModelError(op.label, seen, "allowed: [N, C, d...] and [N, d...]")
    reduction = choice(op, "reduction", "mean", ("none", "sum", "mean"))
    return [TensorType(data.dtype, target if reduction == "none" else ())]


def _infer_cross_entropy(op: Op) -> list[TensorType]:
    return [*_infer(op), op.type(0)]


def _loss(op: Op, scores: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    scores, target = wide(scores), target.astype(np.int64)
    ignored = target == op.attr("ignore_index", _NO_CLASS) if "ignore_index" in op.attrs else np.zeros(target.shape, bool)
    safe = np.where(ignored, 0, target)
    picked = -np.take_along_axis(scores, np.expand_dims(safe, 1), 1).squeeze(1)
    factor = (np.ones(target.shape) if weight is None else wide(weight)[safe]) * ~ignored
    loss = picked * factor
    reduction = op.attr("reduction", "mean")
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.sum() / factor.sum()


def _cross_entropy(
    op: Op, scores: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    scores = wide(scores)
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return _loss(op, logs, target, weight), logs


def _decompose_loss(op: Op) -> Value:
    return _decomposed(op, op.value(0))


def _decompose_cross_entropy(op: Op) -> tuple[Value, ...]:
    logs = make("LogSoftmax", op.value(0), axis=1)
    return (_decomposed(op, logs), logs)[: op.num_outputs]


def _decomposed(op: Op, logs: Value) -> Value:
    """Minus the gathered scores times the gathered weights, reduced."""
    target, reduction = cast(op.value(1), dtypes.int64), op.attr("reduction", "mean")
    ignored = None
    if "ignore_index" in op.attrs:
        ignored = make("Equal", target, scalar(op.attr("ignore_index"), dtypes.int64))
        target = make("Where", ignored, scalar(0, dtypes.int64), target)
    picked = make("Squeeze", make("GatherElements", logs, make("Unsqueeze", target, ints([1])), axis=1), ints([1]))
    factor = make("Gather", op.value(2), target, axis=0) if op.has(2) else None
    if ignored is not None:
        one = scalar(1, logs.dtype) if factor is None else factor
        factor = make("Where", ignored, scalar(0, logs.dtype), one)
    loss = make("Neg", picked if factor is None else make("Mul", picked, factor))
    if reduction == "none":
        return loss
    if reduction == "mean" and factor is None:
        return make("ReduceMean", loss, None, keepdims=0)
    total = make("ReduceSum", loss, None, keepdims=0)
    return total if reduction == "sum" or factor is None else make("Div", total, make("ReduceSum", factor, None, keepdims=0))


define("NegativeLogLikelihoodLoss", _infer, _loss, _decompose_loss)
define("SoftmaxCrossEntropyLoss", _infer_cross_entropy, _cross_entropy, _decompose_cross_entropy)
