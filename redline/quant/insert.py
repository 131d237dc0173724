"""Writes a recipe into a graph as QuantizeLinear and DequantizeLinear, with the ranges that calibration found.

Activations uint8 with one zero point, or ``signed``: int8 whose zero is 0, as tensor cores multiply it; weights int8 with one
scale an output channel. A bias takes up what the rounding of
the weights adds to the mean of the output, sum (w - w') E[x]. Channels of a matrix product's input may be divided by
numbers that multiply the weights' rows instead (SmoothQuant, Xiao et al. 2023).
"""

from collections.abc import Mapping

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import BuildError, closest
from redline.ir import Graph, Node, Value, constant
from redline.ops import make, make_node
from redline.ops.rules import cast
from redline.quant.recipe import FLOAT_READERS, Layer, Recipe
from redline.quant.statistics import Tensor

LEVELS = 255
MOST_SIGNED = 127
TINY = 1e-12


def steps(tensor: Tensor, signed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of uint8 for a range that holds 0; of int8 around 0 where ``signed``."""
    low, high = min(tensor.low, 0.0), max(tensor.high, 0.0)
    if signed:
        return np.asarray(np.float32(max(-low, high, TINY) / MOST_SIGNED)), np.zeros((), np.int8)
    scale = np.float32(max(high - low, TINY) / LEVELS)
    return np.asarray(scale), np.asarray(np.clip(np.rint(-low / float(scale)), 0, LEVELS), np.uint8)


def quantized_weights(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 weights and their scales along ``axis``."""
    others = tuple(i for i in range(array.ndim) if i != axis)
    scale = np.maximum(np.abs(array).max(others), TINY).astype(np.float32) / np.float32(MOST_SIGNED)
    shape = [1] * array.ndim
    shape[axis] = -1
    whole = np.rint(array / scale.reshape(shape))
    return np.clip(whole, -MOST_SIGNED, MOST_SIGNED).astype(np.int8), scale


def insert(
    graph: Graph, recipe: Recipe, tensors: Mapping[str, Tensor], correct_bias: bool = True, wide: DType | None = None,
    signed: bool = False,
) -> Graph:  # fmt: skip
    """``graph`` with the recipe's layers reading integers; raises BuildError where a range is missing.

    ``wide``: the type of the products that read wide tensors; None: integers there, too.
    """
    for name in recipe.tensors.values():
        if name not in tensors:
            raise BuildError("calibration", f"there is no range for {name!r}", closest(name, tensors), "calibrate again")
    return _Insertion(graph, recipe, tensors, correct_bias, wide, signed).run()


class _Insertion:
    """One walk over the graph: ``floats`` are the new values, ``stored`` their 8-bit forms as floats again."""

    def __init__(
        self, graph: Graph, recipe: Recipe, tensors: Mapping[str, Tensor], correct_bias: bool, wide: DType | None, signed: bool
    ) -> None:  # fmt: skip
        self.graph, self.recipe, self.tensors, self.correct_bias, self.wide = graph, recipe, tensors, correct_bias, wide
        self.signed = signed
        self.layers = {layer.node: layer for layer in recipe.layers}
        self.floats: dict[Value, Value] = {}
        self.stored: dict[Value, Value] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            new = self._layer(node) if node in self.layers else self._other(node)
            self.floats.update(zip(node.outputs(), new, strict=True))
        outputs = tuple((name, self.floats[value]) for name, value in self.graph.outputs)
        return Graph(self.graph.name, self.graph.inputs, outputs)

    def _other(self, node: Node) -> tuple[Value, ...]:
        shares = node.op not in FLOAT_READERS
        take = lambda v: self._stored(v) if shares and v in self.recipe.groups else self.floats[v]  # noqa: E731
        return node.with_inputs(tuple(v and take(v) for v in node.inputs)).outputs()

    def _stored(self, value: Value) -> Value:
        """``value`` through its integers."""
        if value not in self.stored:
            self.stored[value] = through_integers(self.floats[value], self.tensors[self.recipe.tensors[value]], self.signed)
        return self.stored[value]

    def _layer(self, node: Node) -> tuple[Value, ...]:
        x = self.layers[node].x
        tensor = self.tensors[self.recipe.tensors[x]]
        if tensor.wide and self.wide is not None:
            return self._other(node) if self.wide == dtypes.float32 else (_narrowed(node, self.floats[x], self.wide),)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        bias = bias and self.floats[bias]
        return (quantized_layer(self.layers[node], self._stored(x), bias, tensor, self.correct_bias),)


def _narrowed(node: Node, x: Value, dtype: DType) -> Value:
    """A matrix product with constant weights, of operands in ``dtype``."""
    w = node.inputs[1]
    assert w is not None and w.array is not None
    weights = constant(w.array.astype(dtype.numpy), w.node.name)
    return cast(_renamed(node.op, (cast(x, dtype), weights), node), dtypes.float32)


def through_integers(x: Value, tensor: Tensor, signed: bool = False) -> Value:
    """``x`` as its integers say it."""
    if tensor.divisor is not None:
        x = make("Mul", x, constant((1 / tensor.divisor).astype(np.float32)))
    scale, zero = map(constant, steps(tensor, signed))
    return make("DequantizeLinear", make("QuantizeLinear", x, scale, zero), scale, zero)


def layer_alone(layer: Layer, tensor: Tensor, signed: bool = False) -> Value:
    """The layer's output from integers, for its float input."""
    bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    return quantized_layer(layer, through_integers(layer.x, tensor, signed), bias, tensor, True)


def quantized_layer(layer: Layer, x: Value, bias: Value | None, tensor: Tensor, correct_bias: bool) -> Value:
    """The layer on quantized weights, for an input ``x`` that went through its integers."""
    node, w = layer.node, layer.node.inputs[1]
    assert w is not None and w.array is not None
    array = w.array.astype(np.float64)
    if tensor.divisor is not None:
        array = array * tensor.divisor[:, None]
    whole, scale = quantized_weights(array, layer.weights_axis)
    weights = make("DequantizeLinear", constant(whole, w.node.name), constant(scale), axis=layer.weights_axis)
    lost = _lost(layer.weights_axis, array, whole, scale, tensor) if correct_bias else None
    if node.op == "MatMul":
        out = _renamed("MatMul", (x, weights), node)
        return out if lost is None else make("Add", out, constant(lost.astype(np.float32)))
    inputs: list[Value | None] = [x, weights]
    if bias is not None or lost is not None:
        inputs.append(_bias(bias, lost))
    return _renamed("Conv", inputs, node)


def _lost(axis: int, array: np.ndarray, whole: np.ndarray, scale: np.ndarray, tensor: Tensor) -> np.ndarray | None:
    """What the rounding of the weights takes from the mean of each output channel."""
    mean = tensor.mean
    inner = array.shape[1] if axis == 0 else array.shape[0]
    if mean is None or mean.size != inner:  # grouped convolutions: a mean a group is not kept
        return None
    mean = mean if tensor.divisor is None else mean / tensor.divisor
    shape = [1] * array.ndim
    shape[axis] = -1
    error = array - whole * scale.astype(np.float64).reshape(shape)
    if axis == 0:
        return np.asarray(np.einsum("mck,c->m", error.reshape(*error.shape[:2], -1), mean))
    return np.asarray(mean @ error)


def _bias(bias: Value | None, lost: np.ndarray | None) -> Value | None:
    if lost is None:
        return bias
    if bias is None:
        return constant(lost.astype(np.float32))
    if bias.array is None:
        return make("Add", bias, constant(lost.astype(np.float32)))
    return constant((bias.array + lost).astype(np.float32))


def _renamed(op: str, inputs: list[Value | None] | tuple[Value, ...], node: Node) -> Value:
    return make_node(op, inputs, node.attrs, name=node.name, origin=node.origin).out
