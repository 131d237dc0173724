"""Changes of element type, and Identity."""

import numpy as np

from redline.base.errors import ModelError
from redline.ir import TensorType
from redline.ops.registry import Op, define
from redline.ops.rules import cast, onnx_dtype, same


def _infer_cast(op: Op) -> list[TensorType]:
    return [TensorType(onnx_dtype(op, "to"), op.type(0).shape)]


def _infer_cast_like(op: Op) -> list[TensorType]:
    return [TensorType(op.type(1).dtype, op.type(0).shape)]


def _infer_bit_cast(op: Op) -> list[TensorType]:
    source, target = op.type(0).dtype, onnx_dtype(op, "to")
    if source.size != target.size:
        raise ModelError(op.label, f"BitCast of {source} to {target}", "both must have the same width")
    return [TensorType(target, op.type(0).shape)]


def _bit_cast(op: Op, x: np.ndarray) -> np.ndarray:
    target = onnx_dtype(op, "to").numpy
    return np.frombuffer(x.tobytes(), target).reshape(x.shape)


# Float to integer beyond the integer's range is undefined in the standard; integers wrap; NaN is True.
define("Cast", _infer_cast, lambda op, x: x.astype(onnx_dtype(op, "to").numpy), elementwise=True)
define(
    "CastLike", _infer_cast_like, lambda op, x, like: x.astype(like.dtype),
    lambda op: cast(op.value(0), op.type(1).dtype),
)  # fmt: skip
define("BitCast", _infer_bit_cast, _bit_cast, elementwise=True)
define("Identity", same, lambda op, x: x, lambda op: op.value(0), elementwise=True)
