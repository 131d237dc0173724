"""The order of all passes."""

from redline.ir import Graph


def optimize(graph: Graph) -> Graph:
    return graph
