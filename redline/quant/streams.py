"""Which matrix products stay in 16-bit floats: those whose noise would stay in a transformer's residual stream.

What a product inside a block loses is averaged by the products after it. What is added to the stream reaches the output as
it is, and everything on the way: there the noise of 8 bits counts relative to the sum. On random weights it is a third of a
percent of the sum, on trained ones up to two percent, where a few inputs are much larger than the others.
"""

from collections.abc import Mapping, Sequence

from redline.ir import Graph, Node, Value
from redline.quant.equalize import equalized
from redline.quant.recipe import Layer, Recipe

MOST_NOISE = 0.006  # of a stream, by one product in 8 bits
MAX_DEPTH = 8


def streams(graph: Graph, recipe: Recipe) -> dict[Layer, Value]:
    """The sum that each matrix product's result is added to another activation in; products without one are left out."""
    found = {layer: _stream(layer.node.out, graph.readers) for layer in equalized(recipe)}
    return {layer: value for layer, value in found.items() if value is not None}


def _stream(value: Value, readers: Mapping[Value, Sequence[Node]]) -> Value | None:
    """The first sum of ``value`` and another activation, past scales and biases."""
    for _ in range(MAX_DEPTH):
        nodes = readers.get(value, ())
        if len(nodes) != 1 or nodes[0].op not in ("Add", "Mul") or nodes[0].out.shape != value.shape:
            return None
        others = [v for v in nodes[0].inputs if v is not None and v != value]
        if any(v.array is None for v in others):
            return nodes[0].out if nodes[0].op == "Add" else None
        value = nodes[0].out
    return None
