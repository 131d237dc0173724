"""Lowering a graph: the entry point."""

from collections.abc import Collection

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
    graph: Graph, storage: DType | None = None, attended: DType | None = None, is_open: bool = False,
    large: Collection[int] | None = None, wide_taps: bool = False,
) -> Program:  # fmt: skip
    """The program of ``graph``; raises UnsupportedError naming every node that has no kernel.

    ``storage``: the 16-bit type that float32 values between kernels, and weights, are held in; None: as the graph says.
    ``attended``: that of attention's queries, keys and values; None: the same. ``is_open``: the program must not depend on
    sizes, because it is one of several that become one, and of kernels for processors. ``large``: the same for other
    devices: the numbers of the operations (``large_ones`` at the largest shape) whose results may be stored in 16 bits.
    ``wide_taps``: depthwise filters stay float32.
    """
    missing = unsupported(graph)
    if missing:
        listed = ", ".join(f"{node.op} {node.name!r}" for node in missing)
        raise UnsupportedError(
            graph.name, f"{len(missing)} nodes have no kernel: {listed}", "", "redline check lists what would build"
        )
    return Lowering(graph, ANCHORS, storage, attended, is_open, large, wide_taps).run()


def large_ones(graph: Graph) -> frozenset[int]:
    """The numbers of the operations of ``graph`` whose results are large."""
    return frozenset(i for i, node in enumerate(graph.operations) if fusion.is_large(node))
