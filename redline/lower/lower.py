"""Lowering a graph: the entry point."""

from redline.base.dtypes import DType
from redline.base.errors import UnsupportedError
from redline.ir import Graph, Node
from redline.lower import fusion
from redline.lower.anchors import ANCHORS
from redline.lower.lowering import Lowering
from redline.lower.program import Program


def unsupported(graph: Graph) -> list[Node]:
    """The nodes that have no kernel."""
    return [node for node in graph.operations if node.op not in ANCHORS and not fusion.is_expression(node)]


def lower(
    graph: Graph, storage: DType | None = None, attended: DType | None = None, is_open: bool = False, all_large: bool = False,
) -> Program:  # fmt: skip
    """The program of ``graph``; raises UnsupportedError naming every node that has no kernel.

    ``storage``: the 16-bit type that float32 values between kernels, and weights, are held in; None: as the graph says.
    ``attended``: that of attention's queries, keys and values; None: the same. ``is_open``: the program must not depend on
    sizes, because it is one of several that become one, and of kernels for processors. ``all_large``: for other devices;
    what is stored in 16 bits is chosen as if every value were large.
    """
    missing = unsupported(graph)
    if missing:
        listed = ", ".join(f"{node.op} {node.name!r}" for node in missing)
        raise UnsupportedError(
            graph.name, f"{len(missing)} nodes have no kernel: {listed}", "", "redline check lists what would build"
        )
    return Lowering(graph, ANCHORS, storage, attended, is_open, all_large).run()
