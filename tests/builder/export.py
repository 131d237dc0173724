"""From a graph back to ONNX: the graph vocabulary carries the standard's names, so a node is a node."""

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, helper

from redline.ir import CONSTANT, INPUT, Graph, Value
from tests.builder.bundle import Case


def case_of(name: str, graph: Graph, feeds: Mapping[str, np.ndarray], witness: bool = True) -> Case:
    """The graph as a case. Outputs that are no node's own, or are so twice, are identities in ONNX."""
    names: dict[Value, str] = {}
    nodes: list[NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    for i, node in enumerate(graph.nodes):
        if node.op == INPUT:
            names[node.out] = node.name
        elif node.op == CONSTANT:
            names[node.out] = f"c{i}"
            constants[f"c{i}"] = node.attrs["value"]
        else:
            names |= {value: f"v{i}_{value.index}" for value in node.outputs()}
            read = ["" if value is None else names[value] for value in node.inputs]
            nodes.append(helper.make_node(node.op, read, [names[v] for v in node.outputs()], name=f"n{i}", **node.attrs))
    for output, value in graph.outputs:
        nodes.append(helper.make_node("Identity", [names[value]], [output], name=output))
    return Case(name, nodes, feeds, [output for output, _ in graph.outputs], constants, witness)
