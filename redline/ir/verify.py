"""The verifier: laws that every graph keeps, checked after every pass."""

from collections.abc import Callable

from redline.base.errors import RedlineError
from redline.ir.graph import CONSTANT, INPUT, Graph, Node, TensorType


def verify(graph: Graph, infer: Callable[[Node], tuple[TensorType, ...]] | None = None, where: str = "verify") -> None:
    """Raises RedlineError when an input is undeclared, an output index is off, or a type differs from ``infer``'s."""
    declared = set(graph.inputs)
    for name, result in graph.outputs:
        if not 0 <= result.index < len(result.node.types):
            raise RedlineError(
                where, f"{name!r} is output {result.index} of {result.node!r}", f"it has {len(result.node.types)}"
            )
    for node in graph.nodes:
        if node.op == INPUT and node not in declared:
            raise RedlineError(where, f"input {node.name!r} is read but not declared", "", "this is a bug in Redline")
        for value in node.inputs:
            if value is not None and not 0 <= value.index < len(value.node.types):
                seen = f"{node!r} reads output {value.index} of {value.node!r}"
                raise RedlineError(where, seen, f"it has {len(value.node.types)}")
        if infer is not None and node.op not in (INPUT, CONSTANT):
            expected = infer(node)
            if expected != node.types:
                seen = f"{node!r} is typed {node.types}"
                raise RedlineError(where, seen, f"inference says {expected}", "this is a bug in Redline")
