"""Where values are written so that Concat, Reshape and Transpose behind them need no kernel.

A home is a view that the producing kernel writes to. Homes come from the end: an output of the graph is its caller's
array, the parts of a Concat are slices of its result, and a moving operator hands its home on to its operand where the
strides allow it.
"""

from collections.abc import Callable, Mapping

from redline.base.shapes import size
from redline.ir import Graph, Node, Value
from redline.lower import fusion, views
from redline.lower.program import View
from redline.ops import registry
from redline.ops.move import permutation

Allocate = Callable[[Value], View]
SMALL_ELEMENTS = 1 << 12


class Placement:
    """Assigns homes; ``allocate`` gives a new temporary for a value as a contiguous view."""

    def __init__(self, graph: Graph, consumers: fusion.Consumers, allocate: Allocate) -> None:
        self.graph, self.consumers, self.allocate = graph, consumers, allocate
        self.homes: dict[Value, View] = {}

    def assign(self, outputs: Mapping[str, View]) -> dict[Value, View]:
        for name, value in self.graph.outputs:
            self._place(value, outputs[name])
        for node in reversed(list(self.graph.operations)):
            if node.out in self.homes:
                continue
            if node.op == "Concat" or self._is_sole_transpose(node):
                self._place(node.out, self.allocate(node.out))
        return self.homes

    def _is_sole_transpose(self, node: Node) -> bool:
        """A Transpose that keeps the last axis and is the only reader of what a kernel writes."""
        if node.op != "Transpose" or node.inputs[0] is None:
            return False
        source, perm = node.inputs[0], permutation(registry.view(node))
        return perm[-1] == len(perm) - 1 and not fusion.is_leaf(source.node) and self.consumers.of(source) == [node]

    def _place(self, value: Value, view: View) -> None:
        if value in self.homes or fusion.is_leaf(value.node):
            return
        self.homes[value] = view
        op = registry.view(value.node)
        if value.op == "Concat":
            self._place_parts(op, view)
        elif value.op in ("Reshape", "Transpose", "Identity"):
            source = views.backward(op, view)
            if source is not None and _is_written_well(source):
                self._place(op.value(0), source)

    def _place_parts(self, op: registry.Op, view: View) -> None:
        axis, start = op.axis(0, len(view.shape)), 0
        for i, part in enumerate(op.inputs):
            extent = op.shape(i)[axis]
            if part is not None:
                self._place(part, views.narrow(view, axis, start, extent))
            start += extent


def _is_written_well(view: View) -> bool:
    """Elements of the last axis lie side by side, or there are too few of them to matter."""
    wide = [s for e, s in zip(view.shape, view.strides, strict=True) if e > 1]
    return not wide or wide[-1] == 1 or size(view.shape) <= SMALL_ELEMENTS
