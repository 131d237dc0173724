"""What convolutions and matrix products with constant weights have in common: outputs that are linear in the weights."""

from dataclasses import dataclass

import numpy as np

from redline.base import shapes
from redline.ir import Value, constant
from redline.ops import make_node
from redline.ops.layout import channel_axis
from redline.ops.registry import view
from redline.passes.constants import like, wide


@dataclass(frozen=True)
class Linear:
    """The output of a Conv, a ConvTranspose or a MatMul whose weights are one constant matrix."""

    out: Value
    weights: np.ndarray
    bias: np.ndarray | None

    @property
    def axis(self) -> int:
        """The axis of the output along which its channels lie."""
        rank = len(self.out.shape)
        return rank - 1 if self.out.op == "MatMul" else channel_axis(view(self.out.node), rank)

    def scaled(self, factor: np.ndarray) -> Value:
        """The node whose output channels are ``factor`` times as large."""
        by_channel = factor.reshape(1, -1) if self.out.op == "MatMul" else factor.reshape(-1, *(1,) * (self.weights.ndim - 1))
        weights = wide(self.weights)
        if self.out.op == "ConvTranspose":
            group = int(self.out.node.attrs.get("group", 1))
            grouped = weights.reshape(group, -1, *weights.shape[1:])
            by_channel = factor.reshape(group, 1, -1, *(1,) * (weights.ndim - 2))
            product = (grouped * by_channel).reshape(weights.shape)
        else:
            product = weights * by_channel
        return self._with(product, None if self.bias is None else wide(self.bias) * factor)

    def shifted(self, addend: np.ndarray) -> Value:
        """The node with ``addend`` in its bias. Not for a MatMul, which has none."""
        return self._with(self.weights, addend if self.bias is None else wide(self.bias) + addend)

    def _with(self, weights: np.ndarray, bias: np.ndarray | None) -> Value:
        node = self.out.node
        x, old = node.inputs[0], node.inputs[1]
        assert old is not None
        inputs = [x, old if weights is self.weights else constant(like(weights, old))]
        if bias is not None:
            inputs.append(constant(like(bias, old)))
        return make_node(node.op, inputs, node.attrs).out


def linear(value: Value) -> Linear | None:
    """``value`` as a Linear; None for other operators, other types than floats, and weights that are not constant."""
    if value.op not in ("Conv", "ConvTranspose", "MatMul") or not value.dtype.is_float:
        return None
    weights, bias = (*value.node.inputs[1:], None)[:2]
    if weights is None or weights.array is None or (bias is not None and bias.array is None):
        return None
    if value.op == "MatMul" and weights.array.ndim != 2:
        return None
    return Linear(value, weights.array, None if bias is None else bias.array)


def per_channel(value: Value, out: Value, axis: int) -> np.ndarray | None:
    """A constant that broadcasts to ``out`` and varies along ``axis`` at most, as one number a channel in float64."""
    array = value.array
    if array is None or array.ndim > len(out.shape):
        return None
    spread = array.reshape((1,) * (len(out.shape) - array.ndim) + array.shape)
    if any(extent != 1 for i, extent in enumerate(spread.shape) if i != axis):
        return None
    return np.broadcast_to(wide(spread.reshape(-1)), shapes.static(out.shape)[axis : axis + 1])
