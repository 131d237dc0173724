"""Writes a recipe into a graph as QuantizeLinear and DequantizeLinear, with the ranges that calibration found.

Activations and weights lie on a grid (grids.py): activations with one scale a tensor, weights with one an output channel. A
bias takes up what the rounding of the weights adds to the mean of the output, sum (w - w') E[x]. Channels of a matrix
product's input may be divided by numbers that multiply the weights' rows instead (SmoothQuant, Xiao et al. 2023).
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import BuildError, closest
from redline.ir import Graph, Node, Value, constant
from redline.ops import make, make_node
from redline.ops.rules import cast
from redline.quant.grids import UINT8, Grid
from redline.quant.recipe import FLOAT_READERS, Layer, Recipe
from redline.quant.statistics import Tensor

NO_OTHERS: Mapping[str, Grid] = MappingProxyType({})


def insert(
    graph: Graph, recipe: Recipe, tensors: Mapping[str, Tensor], correct_bias: bool = True, wide: DType | None = None,
    grid: Grid = UINT8, others: Mapping[str, Grid] = NO_OTHERS,
) -> Graph:  # fmt: skip
    """``graph`` with the recipe's layers reading numbers of ``grid``; raises BuildError where a range is missing.

    ``wide``: the type of the products that read wide tensors; None: the grid there, too. ``others``: the grids of layers, by
    name, that have another; what all readers share lies on that of the first layer that reads it.
    """
    for name in recipe.tensors.values():
        if name not in tensors:
            raise BuildError("calibration", f"there is no range for {name!r}", closest(name, tensors), "calibrate again")
    return _Insertion(graph, recipe, tensors, correct_bias, wide, grid, others).run()


class _Insertion:
    """One walk over the graph: ``floats`` are the new values, ``stored`` their 8-bit forms as floats again."""

    def __init__(
        self, graph: Graph, recipe: Recipe, tensors: Mapping[str, Tensor], correct_bias: bool, wide: DType | None, grid: Grid,
        others: Mapping[str, Grid],
    ) -> None:  # fmt: skip
        self.graph, self.recipe, self.tensors, self.correct_bias, self.wide = graph, recipe, tensors, correct_bias, wide
        self.grid, self.others = grid, others
        self.layers = {layer.node: layer for layer in recipe.layers}
        self.shared: dict[Value, Grid] = {}
        for layer in recipe.layers:
            if layer.x in recipe.groups:
                self.shared.setdefault(recipe.groups[layer.x], self._grid(layer))
        self.floats: dict[Value, Value] = {}
        self.stored: dict[tuple[Value, Grid], Value] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            new = self._layer(node) if node in self.layers else self._other(node)
            self.floats.update(zip(node.outputs(), new, strict=True))
        outputs = tuple((name, self.floats[value]) for name, value in self.graph.outputs)
        return Graph(self.graph.name, self.graph.inputs, outputs)

    def _other(self, node: Node) -> tuple[Value, ...]:
        shares = node.op not in FLOAT_READERS
        groups, shared = self.recipe.groups, lambda group: self.shared.get(group, self.grid)
        take = lambda v: self._stored(v, shared(groups[v])) if shares and v in groups else self.floats[v]  # noqa: E731
        return node.with_inputs(tuple(v and take(v) for v in node.inputs)).outputs()

    def _grid(self, layer: Layer) -> Grid:
        return self.others.get(layer.name, self.grid)

    def _stored(self, value: Value, grid: Grid) -> Value:
        """``value`` through the numbers of ``grid``."""
        key = value, grid
        if key not in self.stored:
            self.stored[key] = through_grid(self.floats[value], self.tensors[self.recipe.tensors[value]], grid)
        return self.stored[key]

    def _layer(self, node: Node) -> tuple[Value, ...]:
        x = self.layers[node].x
        tensor = self.tensors[self.recipe.tensors[x]]
        if tensor.wide and self.wide is not None:
            return self._other(node) if self.wide == dtypes.float32 else (_narrowed(node, self.floats[x], self.wide),)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        bias = bias and self.floats[bias]
        grid = self._grid(self.layers[node])
        return (quantized_layer(self.layers[node], self._stored(x, grid), bias, tensor, self.correct_bias, grid),)


def _narrowed(node: Node, x: Value, dtype: DType) -> Value:
    """A matrix product with constant weights, of operands in ``dtype``."""
    w = node.inputs[1]
    assert w is not None and w.array is not None
    weights = constant(w.array.astype(dtype.numpy), w.node.name)
    return cast(_renamed(node.op, (cast(x, dtype), weights), node), dtypes.float32)


def through_grid(x: Value, tensor: Tensor, grid: Grid = UINT8) -> Value:
    """``x`` as the numbers of ``grid`` say it."""
    if tensor.divisor is not None:
        x = make("Mul", x, constant((1 / tensor.divisor).astype(np.float32)))
    scale, zero = map(constant, grid.steps(tensor))
    return make("DequantizeLinear", make("QuantizeLinear", x, scale, zero), scale, zero)


def layer_alone(layer: Layer, tensor: Tensor, grid: Grid = UINT8) -> Value:
    """The layer's output from numbers of ``grid``, for its float input."""
    bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    return quantized_layer(layer, through_grid(layer.x, tensor, grid), bias, tensor, True, grid)


def quantized_layer(
    layer: Layer, x: Value, bias: Value | None, tensor: Tensor, correct_bias: bool, grid: Grid = UINT8
) -> Value:  # fmt: skip
    """The layer on quantized weights, for an input ``x`` that went through the grid."""
    node, w = layer.node, layer.node.inputs[1]
    assert w is not None and w.array is not None
    array = w.array.astype(np.float64)
    if tensor.divisor is not None:
        array = array * tensor.divisor[:, None]
    whole, scale = grid.quantized_weights(array, layer.weights_axis)
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
    error = array - whole.astype(np.float64) * scale.astype(np.float64).reshape(shape)
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
