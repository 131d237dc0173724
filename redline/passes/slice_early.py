"""What is thrown away is not computed: a Slice moves in front of operators that work on each row or element for itself.

    Slice(f(x, y)) -> f(Slice(x), Slice(y))

where nothing else reads f's result. A classifier of images that looks at its first token alone then computes its last layer
for one token instead of all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, rewrite
from redline.ops import make, make_node
from redline.ops.move import permutation
from redline.ops.registry import lookup, view
from redline.ops.rules import ints, reshaped
from redline.ops.slicing import Span, slice_spans
from redline.passes import eliminate_common_subexpressions
from redline.passes.algebra import operands

ROWS = ("LayerNormalization", "RMSNormalization", "Softmax", "LogSoftmax")  # of the axes behind ``axis``
QUERIES = 2  # the axis of an Attention's queries


@dataclass(frozen=True)
class Cut:
    """The ``count`` elements from ``start`` on along ``axis`` of a value of rank ``rank``, ``step`` apart."""

    axis: int
    rank: int
    start: int
    count: int
    step: int

    def of(self, value: Value, axis: int | None = None) -> Value:
        """The slice of a value that broadcasts against the whole one; along ``axis`` where it lies elsewhere."""
        axis = self.axis - (self.rank - len(value.shape)) if axis is None else axis
        if axis < 0 or value.shape[axis] == 1:
            return value
        end = self.start + (self.count - 1) * self.step + 1
        return make("Slice", value, *(ints([number]) for number in (self.start, end, axis, self.step)))


def run(graph: Graph) -> Graph:
    """Equal slices, as of the two operands of a sum that read one value, become one between the rounds."""
    fired = {"slice_early": 1}
    while fired:
        graph, fired = rewrite(graph, [Rule("slice_early", frozenset({"Slice"}), _slice)])
        graph = eliminate_common_subexpressions.run(graph) if fired else graph
    return graph


def _slice(node: Node, rewriter: Rewriter) -> Value | None:
    x = operands(node.out)[0]
    if not shapes.is_static(x.shape) or len(x.node.types) != 1 or rewriter.uses(x) != 1:
        return None
    spans = slice_spans(view(node))
    cut = [axis for axis, span in enumerate(spans) if span != Span(0, x.shape[axis], 1)]
    if len(cut) != 1 or spans[cut[0]].step < 1 or not spans[cut[0]].count:
        return None
    (taken,) = (spans[axis] for axis in cut)
    (count,) = shapes.static((taken.count,))
    return _moved(x.node, Cut(cut[0], len(x.shape), taken.start, count, taken.step))


def _moved(node: Node, cut: Cut) -> Value | None:
    """The node's result of what the cut takes of its operands; None where it needs more."""
    if node.op in _FORMS:
        return _FORMS[node.op](node, cut)
    if node.op in ROWS:
        return _rows(node, cut)
    definition = lookup(node.op) if node.inputs else None
    if definition is None or not definition.elementwise or not all(shapes.is_static(v.shape) for v in operands(node.out)):
        return None
    return _again(node, [v and cut.of(v) for v in node.inputs])


def _again(node: Node, inputs: Sequence[Value | None]) -> Value:
    """The same operation on other inputs, under its own name."""
    return make_node(node.op, inputs, node.attrs, num_outputs=1, name=node.name, origin=node.origin).out


def _rows(node: Node, cut: Cut) -> Value | None:
    """One row for itself: the cut is in front of the axes that a row has."""
    x, *rest = node.inputs
    if x is None or cut.axis >= view(node).axis(-1, cut.rank):
        return None
    if any(v is not None and len(v.shape) > cut.rank - 1 - cut.axis for v in rest):
        return None
    return _again(node, [cut.of(x), *rest])


def _product(node: Node, cut: Cut) -> Value | None:
    """MatMul(x, constant matrix): rows of x."""
    x, weights = operands(node.out)
    if len(weights.shape) != 2 or weights.array is None or cut.axis == cut.rank - 1 or len(x.shape) != cut.rank:
        return None
    return _again(node, [cut.of(x), weights])


def _attention(node: Node, cut: Cut) -> Value | None:
    """Queries attend for themselves, where no mask and no order tells them apart."""
    queries, keys, values, *rest = node.inputs
    is_plain = not any(rest) and not view(node).attr("is_causal", 0) and not view(node).attr("qk_matmul_output_mode", 0)
    if cut.axis != QUERIES or cut.rank != 4 or queries is None or len(queries.shape) != 4 or not is_plain:
        return None
    return _again(node, [cut.of(queries), keys, values, *rest])


def _transposed(node: Node, cut: Cut) -> Value | None:
    (x,), perm = operands(node.out), permutation(view(node))
    return _again(node, [cut.of(x, perm[cut.axis])])


def _reshaped(node: Node, cut: Cut) -> Value | None:
    """An axis that a Reshape leaves as it is."""
    x, out = operands(node.out)[0], shapes.static(node.out.shape)
    if not shapes.is_static(x.shape) or 0 in out:
        return None
    source = shapes.static(x.shape)
    before = shapes.size(out[: cut.axis])
    for axis in range(len(source)):
        if source[axis] == out[cut.axis] and shapes.size(source[:axis]) == before:
            return reshaped(cut.of(x, axis), (*out[: cut.axis], cut.count, *out[cut.axis + 1 :]))
    return None


_FORMS: dict[str, Callable[[Node, Cut], Value | None]] = {
    "MatMul": _product, "Attention": _attention, "Transpose": _transposed, "Reshape": _reshaped,
}  # fmt: skip
