"""The reference interpreter: a graph evaluated node by node with numpy. Slow, and the definition of right."""

from collections.abc import Callable, Mapping

import numpy as np

from redline.ir import INPUT, Graph, Node, Value
from redline.ops import registry


def run(
    graph: Graph, inputs: Mapping[str, np.ndarray], observe: Callable[[Node, tuple[np.ndarray, ...]], None] | None = None
) -> dict[str, np.ndarray]:
    """The graph's outputs by name. ``observe`` sees every node with its results."""
    values: dict[Value, np.ndarray] = {}
    for node in graph.nodes:
        if node.op == INPUT:
            results: tuple[np.ndarray, ...] = (np.asarray(inputs[node.name]),)
        else:
            results = registry.evaluate(node, [None if v is None else values[v] for v in node.inputs])
        for value, array in zip(node.outputs(), results, strict=True):
            values[value] = array
        if observe is not None:
            observe(node, results)
    return {name: values[value] for name, value in graph.outputs}
