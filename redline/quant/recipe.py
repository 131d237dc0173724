"""What to quantize in an optimized graph: layers with constant weights, and the tensors they read.

A tensor that a convolution reads is stored in 8 bits for all its readers, together with what it is joined from or picked
out of, which gets the same steps; so a network of convolutions has no float islands. What only matrix products read stays
float for others: the residual stream of a transformer keeps its precision.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from redline.base import dtypes
from redline.ir import CONSTANT, Graph, Node, Value

LAYERS = frozenset({"Conv", "MatMul"})
# Operators whose result holds the elements of their data, or the largest of some: one range serves both.
SHARED = frozenset({"Concat", "MaxPool", "Reshape", "Transpose", "Slice", "Expand", "Gather"})
FEW_CHANNELS = 4
MIN_WEIGHTS = 64  # fewer are not worth a step of quantization
# Readers that would have to write a quantized tensor out in floats again.
FLOAT_READERS = frozenset({"Conv", "MatMul", "ConvTranspose", "Attention"})


@dataclass(frozen=True)
class Layer:
    """A product of an activation with constant weights. ``name`` is unique in the graph."""

    name: str
    node: Node

    @property
    def x(self) -> Value:
        return _data(self.node)

    @property
    def weights_axis(self) -> int:
        """The axis of the weights along which the output's channels lie."""
        return 0 if self.node.op == "Conv" else 1


@dataclass(frozen=True)
class Recipe:
    """``layers`` in the graph's order; ``tensors`` to be stored in 8 bits, by name.

    ``groups`` are those that all readers take in 8 bits, with the tensor whose group, and range, each shares.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[Value, str]
    groups: Mapping[Value, Value]


def _data(node: Node) -> Value:
    value = node.inputs[0]
    assert value is not None
    return value


def is_layer(node: Node) -> bool:
    if node.op not in LAYERS or node.types[0].dtype != dtypes.float32:
        return False
    weights = node.inputs[1]
    array = None if weights is None else weights.array
    if array is None or array.size < MIN_WEIGHTS or _data(node).op == CONSTANT:
        return False
    return node.op == "Conv" or array.ndim == 2


def of_images(graph: Graph) -> list[str]:
    """The names of the layers that read images of few channels, channels last: too few for dot products of bytes."""
    names = names_of(graph)
    found = []
    for layer in layers_of(graph, names):
        channels = layer.node.inputs[1].shape[1] if layer.node.op == "Conv" and layer.node.inputs[1] is not None else None
        if isinstance(channels, int) and channels <= FEW_CHANNELS and int(layer.node.attrs.get("group", 1)) == 1:
            found.append(layer.name)
    return found


def names_of(graph: Graph) -> dict[Node, str]:
    """A name for every node: its own or that of the first ONNX node it stands for, numbered where several have it.

    Layers come first: what the passes have put around one has its name, too.
    """
    seen: dict[str, int] = {}
    names = {}
    for node in sorted((node for node in graph.nodes if node.op != CONSTANT), key=lambda node: not is_layer(node)):
        name = node.name or next(iter(node.origin), "") or node.op
        seen[name] = seen.get(name, 0) + 1
        names[node] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return names


def layers_of(graph: Graph, names: Mapping[Node, str]) -> Iterator[Layer]:
    for node in graph.operations:
        if is_layer(node):
            yield Layer(names[node], node)


def recipe_of(graph: Graph, without: Collection[str] = (), measured: Collection[str] | None = None) -> Recipe:
    """The recipe of ``graph`` that leaves the layers named in ``without`` in float.

    ``measured``: the names of the tensors that have a range, where not all could have one: a recipe with fewer layers may have
    sums of two float results where the whole one has none.
    """
    names = names_of(graph)
    layers = tuple(layer for layer in layers_of(graph, names) if layer.name not in without)
    shared = _closure({layer.x for layer in layers if layer.node.op == "Conv"})
    shared |= dict.fromkeys(v for v in _shortcuts(graph, shared) if measured is None or _name(v, names) in measured)
    values = dict.fromkeys((*shared, *(layer.x for layer in layers)))
    return Recipe(layers, {value: _name(value, names) for value in values}, _groups(shared))


def _shortcuts(graph: Graph, shared: Collection[Value]) -> Iterator[Value]:
    """Of a sum of two float results that is stored in 8 bits, the later one in the graph's order.

    Lowering adds in the kernel of the earlier one, and the other's result waits in memory for it.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for value in shared:
        total = value
        while total.op in ("Relu", "Clip") and total.node.inputs[0] is not None:
            total = total.node.inputs[0]
        parts = [v for v in total.node.inputs if v is not None and v.op != CONSTANT]
        if total.op == "Add" and len(parts) == 2 and not any(v in shared for v in parts) and parts[0].type == parts[1].type:
            yield max(parts, key=lambda v: order[v.node])


def _name(value: Value, names: Mapping[Node, str]) -> str:
    return names[value.node] if value.index == 0 else f"{names[value.node]}:{value.index}"


def _closure(values: set[Value]) -> dict[Value, None]:
    """The values and what they are joined from or picked out of, float and not constant."""
    found: dict[Value, None] = {}
    stack = list(values)
    while stack:
        value = stack.pop()
        if value in found or value.op == CONSTANT or value.dtype != dtypes.float32:
            continue
        found[value] = None
        stack += _sources(value)
    return found


def _sources(value: Value) -> list[Value]:
    if value.op not in SHARED or len(value.node.types) > 1:
        return []
    inputs = value.node.inputs if value.op == "Concat" else value.node.inputs[:1]
    return [v for v in inputs if v is not None and v.op != CONSTANT]


def _groups(values: Mapping[Value, None]) -> dict[Value, Value]:
    """The representative of each value's group, by union of values and their sources."""
    parent = {value: value for value in values}

    def root(value: Value) -> Value:
        while parent[value] != value:
            value = parent[value]
        return value

    for value in values:
        for source in _sources(value):
            if source in parent:
                parent[root(source)] = root(value)
    return {value: root(value) for value in values}
