"""What is known of a value's range without running anything."""

from redline.ir import Value
from redline.passes.constants import splat

_NEVER_NEGATIVE = frozenset({"Abs", "Exp", "Relu", "Sigmoid", "Softmax", "Sqrt", "HardSigmoid", "Softplus"})
_KEEPS_SIGN = frozenset(
    {
        "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "Reshape", "Transpose", "Slice", "Expand", "MaxPool",
        "Identity", "Squeeze", "Unsqueeze", "Flatten",
    }
)  # fmt: skip
_MAX_DEPTH = 16


def is_nonnegative(value: Value, depth: int = 0) -> bool:
    """Whether ``value`` is provably at least 0, or NaN, everywhere."""
    known = value.array
    if known is not None:
        return bool((known >= 0).all())
    if value.op in _NEVER_NEGATIVE or depth == _MAX_DEPTH:
        return value.op in _NEVER_NEGATIVE
    inputs = [v for v in value.node.inputs if v is not None]
    if value.op == "Clip":
        return len(inputs) > 1 and value.node.inputs[1] is not None and (splat(value.node.inputs[1]) or -1) >= 0
    if value.op in _KEEPS_SIGN:
        return is_nonnegative(inputs[0], depth + 1)
    if value.op == "Mul" and inputs[0] == inputs[1]:
        return True
    if value.op == "Pow" and splat(inputs[1]) == 2:
        return True
    return value.op in ("Add", "Mul", "Div", "Concat") and all(is_nonnegative(v, depth + 1) for v in inputs)
