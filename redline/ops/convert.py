"""Changes of element type, and Identity."""

import numpy as np

from redline.base import dtypes
from redline.base.errors import ModelError, UnsupportedError
from redline.ir import TensorType
from redline.ops.quantize import bounds
from redline.ops.registry import Op, define
from redline.ops.rules import cast, onnx_dtype, same, wide


def _infer_cast(op: Op) -> list[TensorType]:
    return [TensorType(_saturating(op, onnx_dtype(op, "to")), op.type(0).shape)]


def _saturating(op: Op, dtype: dtypes.DType) -> dtypes.DType:
    """``dtype``, the target of a cast; raises UnsupportedError for a float8 whose excess would become NaN."""
    if dtype == dtypes.float8_e4m3fn and not op.attr("saturate", 1):
        raise UnsupportedError(op.label, f"a cast to {dtype} that does not saturate", "allowed: saturate = 1")
    return dtype


def _converted(x: np.ndarray, dtype: dtypes.DType) -> np.ndarray:
    """What is too large for a float8 becomes its largest; the other floats have infinities."""
    if dtype == dtypes.float8_e4m3fn:
        x = np.clip(wide(x), *bounds(dtype))
    return x.astype(dtype.numpy)


def _infer_cast_like(op: Op) -> list[TensorType]:
    return [TensorType(_saturating(op, op.type(1).dtype), op.type(0).shape)]


def _infer_bit_cast(op: Op) -> list[TensorType]:
    source, target = op.type(0).dtype, onnx_dtype(op, "to")
    if source.size != target.size:
        raise ModelError(op.label, f"BitCast of {source} to {target}", "both must have the same width")
    return [TensorType(target, op.type(0).shape)]


def _bit_cast(op: Op, x: np.ndarray) -> np.ndarray:
    target = onnx_dtype(op, "to").numpy
    return np.frombuffer(x.tobytes(), target).reshape(x.shape)


# Float to integer beyond the integer's range is undefined in the standard; integers wrap; NaN is True.
define("Cast", _infer_cast, lambda op, x: _converted(x, onnx_dtype(op, "to")), elementwise=True)
define(
    "CastLike", _infer_cast_like, lambda op, x, like: _converted(x, op.type(1).dtype),
    lambda op: cast(op.value(0), op.type(1).dtype),
)  # fmt: skip
define("BitCast", _infer_bit_cast, _bit_cast, elementwise=True)
define("Identity", same, lambda op, x: x, lambda op: op.value(0), elementwise=True)
