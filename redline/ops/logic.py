"""Comparisons, boolean logic and selection."""

import numpy as np

from redline.base import dtypes
from redline.base.errors import ModelError
from redline.ir import TensorType
from redline.ops.registry import Op, define
from redline.ops.rules import boolean, broadcast_shape, common_dtype, plain, widened

for _name, _function in {
    "Equal": np.equal, "Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal, "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor,
    "IsNaN": np.isnan,
}.items():  # fmt: skip
    define(_name, boolean, plain(_function), elementwise=True)


def _is_inf(op: Op, x: np.ndarray) -> np.ndarray:
    negative = np.isneginf(x) if op.attr("detect_negative", 1) else np.zeros(x.shape, bool)
    return negative | np.isposinf(x) if op.attr("detect_positive", 1) else negative


define("IsInf", boolean, widened(_is_inf), elementwise=True)


def _infer_where(op: Op) -> list[TensorType]:
    if op.type(0).dtype != dtypes.bool_:
        raise ModelError(op.label, f"the condition of Where is {op.type(0)}", "it must be bool")
    return [TensorType(common_dtype(op, (1, 2)), broadcast_shape(op))]


define("Where", _infer_where, lambda op, condition, x, y: np.where(condition, x, y), elementwise=True)
