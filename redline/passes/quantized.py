"""Reading quantization out of a graph: what QuantizeLinear and DequantizeLinear nodes with constant parameters say."""

from dataclasses import dataclass

import numpy as np

from redline.base import dtypes
from redline.ir import Graph, Value, constant
from redline.ops import make
from redline.ops.registry import evaluate, view

# Operators that hold or make quantized tensors: a graph with one of them takes the passes for integers.
OPERATORS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
        "MatMulInteger",
    }
)  # fmt: skip
# Those that the passes for integers read, so nothing takes them apart before.
WHOLE = frozenset({"QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger"})
# Those that have kernels.
KERNELS = frozenset({"ConvInteger", "MatMulInteger", "QuantizeLinear"})


def holds_quantization(graph: Graph) -> bool:
    return any(node.op in OPERATORS for node in graph.operations)


@dataclass(frozen=True)
class Quantized:
    """(x - zero) * scale for a DequantizeLinear, round(x / scale) + zero for a QuantizeLinear; a float8 has the zero 0.

    ``scale`` [], or [n] along ``axis``, in float64, ``zero`` in int64.
    """

    x: Value
    scale: np.ndarray
    zero: np.ndarray
    axis: int

    @property
    def is_per_tensor(self) -> bool:
        return self.scale.ndim == 0

    def same_steps(self, other: "Quantized") -> bool:
        """Whether both are per tensor and place the same integers on the same numbers."""
        return self.is_per_tensor and other.is_per_tensor and self.scale == other.scale and self.zero == other.zero


def read(value: Value | None, op: str) -> Quantized | None:
    """``value`` as the result of ``op`` with constant parameters, float32 on its wide side; None for anything else."""
    if value is None or value.op != op or value.node.attrs.get("block_size", 0):
        return None
    x, scale, zero = (*value.node.inputs, None)[:3]
    if x is None or scale is None or scale.array is None or (zero is not None and zero.array is None):
        return None
    if scale.dtype != dtypes.float32 or dtypes.float32 not in (x.dtype, value.dtype) or scale.array.ndim > 1:
        return None
    narrow = value.dtype if op == "QuantizeLinear" else x.dtype
    is_float = narrow == dtypes.float8_e4m3fn
    if not narrow.is_integer and not is_float:
        return None
    one = scale.array.size == 1
    scales = scale.array.astype(np.float64).reshape(() if one else -1)
    zeros = np.zeros(scales.shape, np.int64) if zero is None else np.asarray(zero.array).astype(np.int64).reshape(scales.shape)
    if is_float and zero is not None and np.any(zero.array):  # type: ignore[arg-type]
        return None
    axis = 0 if one else view(value.node).axis(1, len(x.shape))
    return Quantized(x, scales, zeros, axis)


def dequantized(value: Value | None) -> Quantized | None:
    return read(value, "DequantizeLinear")


def quantized(value: Value | None) -> Quantized | None:
    return read(value, "QuantizeLinear")


def with_steps(op: str, x: Value, like: Value, zero: np.ndarray | None = None) -> Value:
    """``op`` of ``x`` with the scale of the node ``like``, and its zero point unless ``zero`` is given."""
    _, scale, old = (*like.node.inputs, None)[:3]
    return make(op, x, scale, old if zero is None else constant(zero), **like.node.attrs)


def constant_of(value: Value) -> np.ndarray | None:
    """A constant, or a dequantized one, in float64; None for what is only known at run time."""
    if value.array is not None:
        return value.array.astype(np.float64)
    inputs = value.node.inputs
    if value.op != "DequantizeLinear" or any(v is not None and v.array is None for v in inputs):
        return None
    return evaluate(value.node, [None if v is None else v.array for v in inputs])[0].astype(np.float64)
