"""RotaryEmbedding: pairs of a head's elements turned by angles that grow with the position."""

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import ints, reshaped, wide


def _sizes(op: Op) -> tuple[int, int, int]:
    """Heads, elements of a head, and how many of them turn."""
    shape = op.type(0).shape
    if len(shape) == 4:
        heads, size = shapes.static((shape[1], shape[3]), op.label)
    else:
        heads = int(op.attr("num_heads", 0))
        if len(shape) != 3 or heads < 1:
            raise ModelError(
                op.label, f"rank {len(shape)} and {heads} heads", "allowed: [B, H, S, D], or [B, S, H * D] and num_heads"
            )
        size = shapes.static(shape[2:], op.label)[0] // heads
    turning = int(op.attr("rotary_embedding_dim", 0)) or size
    if turning % 2 or turning > size or op.type(1).shape[-1] != turning // 2:
        seen = f"{turning} turning elements of {size}, angles {shapes.text(op.type(1).shape)}"
        raise ModelError(op.label, seen, "an even number, half as many angles")
    return heads, size, turning


def _infer(op: Op) -> list[TensorType]:
    _sizes(op)
    return [op.type(0)]


def _reference(op: Op, x: np.ndarray, cos: np.ndarray, sin: np.ndarray, positions: np.ndarray | None = None) -> np.ndarray:
    heads, size, turning = _sizes(op)
    x4 = wide(x).transpose(0, 2, 1, 3) if x.ndim == 4 else wide(x).reshape(*x.shape[:2], heads, size)
    cos, sin = (wide(a if positions is None else a[positions])[:, :, None] for a in (cos, sin))
    y = x4.copy()
    halves = slice(0, turning, 2), slice(1, turning, 2)
    if not op.attr("interleaved", 0):
        halves = slice(0, turning // 2), slice(turning // 2, turning)
    a, b = x4[..., halves[0]], x4[..., halves[1]]
    y[..., halves[0]], y[..., halves[1]] = cos * a - sin * b, sin * a + cos * b
    return y.transpose(0, 2, 1, 3) if x.ndim == 4 else y.reshape(x.shape)


def _angles(op: Op, i: int, packed: bool) -> Value:
    """[B, S, half], with an axis for the heads: third when they are packed, else second."""
    cache = op.value(i)
    if op.has(3):
        cache = make("Gather", cache, op.value(3), axis=0)
    return make("Unsqueeze", cache, ints([2 if packed else 1]))


def _part(x: Value, start: int, end: int, step: int = 1) -> Value:
    return make("Slice", x, ints([start]), ints([end]), ints([-1]), ints([step]))


def _decompose(op: Op) -> Value:
    """Slices of the last axis, turned and put together again."""
    heads, size, turning = _sizes(op)
    x = op.value(0)
    packed = len(x.shape) == 3
    x4 = reshaped(x, (*x.shape[:2], heads, size)) if packed else x
    cos, sin = _angles(op, 1, packed), _angles(op, 2, packed)
    interleaved = bool(op.attr("interleaved", 0))
    if interleaved:
        a, b = _part(x4, 0, turning, 2), _part(x4, 1, turning, 2)
    else:
        a, b = _part(x4, 0, turning // 2), _part(x4, turning // 2, turning)
    real = make("Sub", make("Mul", cos, a), make("Mul", sin, b))
    imaginary = make("Add", make("Mul", sin, a), make("Mul", cos, b))
    if interleaved:
        pairs = [make("Unsqueeze", part, ints([-1])) for part in (real, imaginary)]
        turned = reshaped(make("Concat", *pairs, axis=-1), (*x4.shape[:3], turning))
    else:
        turned = make("Concat", real, imaginary, axis=-1)
    y = turned if turning == size else make("Concat", turned, _part(x4, turning, size), axis=-1)
    return reshaped(y, x.shape)


define("RotaryEmbedding", _infer, _reference, _decompose)
