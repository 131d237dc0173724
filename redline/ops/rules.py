"""What the operator families share: type rules, half precision computed in float32, and small makers of nodes."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from redline.base import dtypes, shapes
from redline.base.dtypes import DType
from redline.base.errors import ModelError, RedlineError
from redline.base.shapes import Shape
from redline.ir import TensorType, Value, constant
from redline.ops.registry import Op, Reference, make

HALF = (dtypes.float16, dtypes.bfloat16)


def wide(array: np.ndarray | None) -> Any:
    """Floats of 16 and 8 bits as float32; anything else as it is."""
    narrow = array is not None and dtypes.from_numpy(array.dtype) in dtypes.NARROW_FLOATS
    return array.astype(np.float32) if narrow and array is not None else array


def plain(function: Callable[..., Any]) -> Reference:
    """The reference that calls ``function`` on the widened arrays; ``evaluate`` rounds its result to the node's type."""
    return lambda op, *arrays: function(*map(wide, arrays))


def widened(function: Reference) -> Reference:
    """``function(op, *arrays)``, given its arrays widened."""
    return lambda op, *arrays: function(op, *map(wide, arrays))


def same(op: Op) -> list[TensorType]:
    """The output has the type of input 0."""
    return [op.type(0)]


def common_dtype(op: Op, indices: Iterable[int] | None = None) -> DType:
    """The one element type of the inputs; raises ModelError where they differ."""
    found = {op.type(i).dtype.name: op.type(i).dtype for i in (range(len(op.inputs)) if indices is None else indices)}
    if len(found) != 1:
        seen = f"{op.name} has inputs of types {', '.join(found) or 'none'}"
        raise ModelError(op.label, seen, "they must be of one type", "insert a Cast")
    return next(iter(found.values()))


def broadcast_shape(op: Op) -> Shape:
    """The broadcast of all inputs' shapes; raises ModelError naming the node where they conflict."""
    try:
        return shapes.broadcast(*(op.type(i).shape for i in range(len(op.inputs))))
    except RedlineError as error:
        raise ModelError(op.label, f"{op.name}: {error.seen}", "equal extents or 1") from None


def broadcast(op: Op) -> list[TensorType]:
    """Inputs of one element type, broadcast together."""
    return [TensorType(common_dtype(op), broadcast_shape(op))]


def pair(op: Op) -> list[TensorType]:
    """As ``broadcast``, of exactly two inputs."""
    if len(op.inputs) != 2:
        raise ModelError(op.label, f"{op.name} has {len(op.inputs)} inputs", "it takes two")
    return broadcast(op)


def boolean(op: Op) -> list[TensorType]:
    """As ``broadcast``, with a boolean result."""
    common_dtype(op)
    return [TensorType(dtypes.bool_, broadcast_shape(op))]


def onnx_dtype(op: Op, attr: str, default: DType | None = None) -> DType:
    """The element type that an attribute names by its ONNX number."""
    number = op.attr(attr, default and default.onnx)
    if number not in dtypes.BY_ONNX:
        known = ", ".join(f"{d.onnx} ({d.name})" for d in dtypes.ALL)
        raise ModelError(op.label, f"{op.name} asks for ONNX data type {number}", f"supported: {known}")
    return dtypes.BY_ONNX[number]


def choice(op: Op, attr: str, default: str, allowed: Sequence[str]) -> str:
    """A string attribute that must be one of ``allowed``."""
    value = op.attr(attr, default)
    if value not in allowed:
        raise ModelError(op.label, f"{op.name} has {attr}={value!r}", f"allowed: {', '.join(allowed)}")
    return str(value)


def ints(values: Iterable[int]) -> Value:
    """A constant int64 vector."""
    return constant(np.array([int(v) for v in values], np.int64))


def scalar(value: float, dtype: DType) -> Value:
    return constant(np.array(value, dtype.numpy))


def reshaped(value: Value, shape: Shape) -> Value:
    """``value`` in another shape of as many elements; at most one dimension may be open."""
    if value.shape == shape:
        return value
    open_dims = [dim for dim in shape if not isinstance(dim, int)]
    if len(open_dims) > 1:
        shapes.static(shape, "Reshape")
    target = ints(dim if isinstance(dim, int) else -1 for dim in shape)
    return make("Reshape", value, target, allowzero=int(not open_dims))


def transposed(value: Value, perm: Sequence[int]) -> Value:
    return value if list(perm) == sorted(perm) else make("Transpose", value, perm=tuple(perm))


def cast(value: Value, dtype: DType) -> Value:
    return value if value.dtype == dtype else make("Cast", value, to=dtype.onnx)
