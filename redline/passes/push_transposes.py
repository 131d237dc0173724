"""Transposes move towards the outputs until they cancel, end in a view, or leave the graph.

Each rule replaces op(Transpose(x)) with Transpose(op'(x)). Constants are transposed with the rest, now. Another
variable operand is transposed back, which pays as long as it is smaller than what is freed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import shapes
from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ir.rewrite import Replacement
from redline.ops import make, make_node
from redline.ops.move import permutation
from redline.ops.order import scan_axis
from redline.ops.reduce import reduced_axes
from redline.ops.registry import lookup, view
from redline.ops.rules import ints, reshaped, transposed
from redline.ops.slicing import pad_widths, slice_spans
from redline.passes.algebra import operands
from redline.passes.commute import swap, unshuffled

Perm = tuple[int, ...]


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


@dataclass(frozen=True)
class Moved:
    """A value that is Transpose(x, perm): its axis i is x's axis perm[i]."""

    x: Value
    perm: Perm

    @property
    def shape(self) -> tuple[int, ...]:
        return shapes.static(self.x.shape)


def moved(value: Value | None) -> Moved | None:
    if value is None or value.op != "Transpose" or not shapes.is_static(value.shape):
        return None
    return Moved(operands(value)[0], permutation(view(value.node)))


def inverse(perm: Sequence[int]) -> Perm:
    return tuple(np.argsort(perm).tolist())


def _size(value: Value) -> int:
    return shapes.size(shapes.static(value.shape))


def _leading(values: Sequence[Value], rank: int) -> Perm | None:
    """The permutation by which most elements of the values come, if that is more than come in any other way."""
    amounts: dict[Perm | None, int] = {}
    for value in values:
        if value.array is None and shapes.is_static(value.shape) and _size(value) > 1:
            found = moved(value) if len(value.shape) == rank else None
            key = found.perm if found is not None else None
            amounts[key] = amounts.get(key, 0) + _size(value)
    best = max((key for key in amounts if key is not None), key=lambda key: amounts[key], default=None)
    return best if best is not None and 2 * amounts[best] > sum(amounts.values()) else None


def _brought_back(value: Value, perm: Perm) -> Value:
    """``value``, which broadcasts against transposed data, as it must be to broadcast against the data itself."""
    if not shapes.is_static(value.shape) or _size(value) == 1:
        return value
    found = moved(value)
    if found is not None and found.perm == perm:
        return found.x
    shape = (1,) * (len(perm) - len(value.shape)) + shapes.static(value.shape)
    array = value.array
    if array is not None:
        return constant(np.ascontiguousarray(array.reshape(shape).transpose(inverse(perm))), value.node.name)
    return transposed(reshaped(value, shape), inverse(perm))


def _elementwise(node: Node, rewriter: Rewriter) -> Value | None:
    """f(Transpose(x), y) -> Transpose(f(x, Transpose^-1(y)))"""
    definition = lookup(node.op) if node.inputs else None
    if definition is None or not definition.elementwise or len(node.types) != 1:
        return None
    perm = _leading(operands(node.out), len(node.out.shape))
    if perm is None:
        return None
    inputs = [None if v is None else _brought_back(v, perm) for v in node.inputs]
    return transposed(make_node(node.op, inputs, node.attrs).out, perm)


def _concat(node: Node, rewriter: Rewriter) -> Value | None:
    """Concat(Transpose(x), Transpose(y)) -> Transpose(Concat(x, y))"""
    rank = len(node.out.shape)
    perm = _leading(operands(node.out), rank)
    if perm is None:
        return None
    inputs = []
    for value in operands(node.out):
        found = moved(value)
        is_same = found is not None and found.perm == perm
        inputs.append(_brought_back(value, perm) if is_same or value.array is not None else transposed(value, inverse(perm)))
    axis = view(node).axis(0, rank)
    return transposed(make("Concat", *inputs, axis=perm[axis]), perm)


def _without(perm: Perm, axes: Sequence[int]) -> Perm:
    """The permutation of what is left when the axes (of the transposed value) go."""
    kept = [perm[axis] for axis in range(len(perm)) if axis not in axes]
    return tuple(sorted(kept).index(axis) for axis in kept)


def _reduce(node: Node, source: Moved) -> Value:
    """Reduce(Transpose(x), axes) -> Transpose(Reduce(x, perm[axes]))"""
    axes = reduced_axes(view(node))
    new = make_node(node.op, (source.x, ints(sorted(source.perm[axis] for axis in axes))), node.attrs).out
    return transposed(new, source.perm if node.attrs.get("keepdims", 1) else _without(source.perm, axes))


def _arg(node: Node, source: Moved) -> Value:
    axis = view(node).axis(0, len(source.perm))
    new = make_node(node.op, (source.x,), {**node.attrs, "axis": source.perm[axis]}).out
    return transposed(new, source.perm if node.attrs.get("keepdims", 1) else _without(source.perm, (axis,)))


def _along(node: Node, source: Moved) -> tuple[Value, ...]:
    """f(Transpose(x), axis) -> Transpose(f(x, perm[axis])) for f along an axis that keeps all axes"""
    axis = view(node).axis(-1, len(source.perm))
    attrs = {**node.attrs, "axis": source.perm[axis]}
    new = make_node(node.op, (source.x, *node.inputs[1:]), attrs, num_outputs=len(node.types))
    return tuple(transposed(value, source.perm) for value in new.outputs())


def _scan(node: Node, source: Moved) -> Value:
    axis = np.array(source.perm[scan_axis(view(node))], np.int64)
    return transposed(make_node(node.op, (source.x, constant(axis)), node.attrs).out, source.perm)


def _slice(node: Node, source: Moved) -> Value:
    """Slice(Transpose(x)) -> Transpose(Slice(x))"""
    spans = slice_spans(view(node))
    starts, ends, axes, steps = [], [], [], []
    for axis, span in enumerate(spans):
        extent, count = source.shape[source.perm[axis]], shapes.static((span.count,))[0]
        if count == extent and span.step == 1:
            continue
        end = span.start + (count - 1) * span.step + (1 if span.step > 0 else -1) if count else span.start
        starts.append(span.start)
        ends.append(end if end >= 0 else -extent - 1)
        axes.append(source.perm[axis])
        steps.append(span.step)
    return transposed(make("Slice", source.x, ints(starts), ints(ends), ints(axes), ints(steps)), source.perm)


def _pad(node: Node, source: Moved) -> Value:
    widths = [pad_widths(view(node))[axis] for axis in inverse(source.perm)]
    pads = ints([before for before, _ in widths] + [after for _, after in widths])
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    return transposed(make_node("Pad", (source.x, pads, fill), node.attrs).out, source.perm)


def _expand(node: Node, source: Moved) -> Value:
    """Expand(Transpose(x), shape) -> Transpose(Expand(x)), new axes first in both"""
    shape = shapes.static(node.out.shape)
    added = len(shape) - len(source.perm)
    perm = (*range(added), *(added + axis for axis in source.perm))
    return transposed(make("Expand", source.x, ints(shape[axis] for axis in inverse(perm))), perm)


def _gather(node: Node, source: Moved) -> Value:
    """Gather(Transpose(x), indices, axis) -> Transpose(Gather(x, indices, perm[axis])); the indices' axes stay together"""
    axis, num_indices = view(node).axis(0, len(source.perm)), len(operands(node.out)[1].shape)
    from_x = source.perm[axis]
    new = make_node("Gather", (source.x, node.inputs[1]), {**node.attrs, "axis": from_x}).out
    places = [i + num_indices - 1 if i > from_x else i for i in source.perm]
    perm = (*places[:axis], *range(from_x, from_x + num_indices), *places[axis + 1 :])
    return transposed(new, perm)


def _normalization(node: Node, source: Moved) -> Value | None:
    """Normalization(Transpose(x)) -> Transpose(Normalization(x)) where the normalised axes stay the last"""
    rank = len(source.perm)
    axis = view(node).axis(-1, rank)
    fits = source.perm[axis:] == tuple(range(axis, rank)) and all(len(v.shape) <= rank - axis for v in operands(node.out)[1:])
    if not fits or len(node.types) != 1:
        return None
    return transposed(make_node(node.op, (source.x, *node.inputs[1:]), node.attrs, num_outputs=1).out, source.perm)


def _quantize(node: Node, source: Moved) -> Value | None:
    """Q(Transpose(x), axis) -> Transpose(Q(x, perm[axis]))"""
    if node.attrs.get("block_size", 0):
        return None
    axis = view(node).axis(1, len(source.perm)) if len(operands(node.out)[1].shape) == 1 else None
    attrs = dict(node.attrs) if axis is None else {**node.attrs, "axis": source.perm[axis]}
    return transposed(make_node(node.op, (source.x, *node.inputs[1:]), attrs).out, source.perm)


def _reshape(node: Node, source: Moved) -> Value | None:
    """Reshape(Transpose(x)) -> Transpose(Reshape(x)) where the Reshape tears apart nothing that x holds together"""
    found = swap(source.shape, source.perm, shapes.static(node.out.shape))
    return None if found is None else transposed(reshaped(source.x, found.shape), found.perm)


def _transpose(node: Node, source: Moved) -> Value:
    """Transpose(Transpose(x, p), q) -> Transpose(x, p[q])"""
    return transposed(source.x, [source.perm[axis] for axis in permutation(view(node))])


def _flattened(node: Node, rewriter: Rewriter) -> Value | None:
    """MatMul(Reshape(Transpose(x)), W) -> MatMul(Reshape(x), W with its rows in x's order)"""
    a, w = operands(node.out)
    source = moved(operands(a)[0]) if a.op == "Reshape" else None
    if source is None or w.array is None or w.array.ndim != 2:
        return None
    found = unshuffled(source.shape, source.perm, shapes.static(a.shape))
    if found is None:
        return None
    return make("MatMul", reshaped(transposed(source.x, found.perm), a.shape), constant(w.array[found.rows], w.node.name))


def _dequantized(node: Node, rewriter: Rewriter) -> Value | None:
    """Transpose(DequantizeLinear(w)) -> DequantizeLinear(Transpose(w)) for a constant w, which is then transposed now"""
    (value,), perm = operands(node.out), permutation(view(node))
    if value.op != "DequantizeLinear" or value.node.attrs.get("block_size", 0) or operands(value)[0].array is None:
        return None
    attrs, rest = dict(value.node.attrs), value.node.inputs[1:]
    if len(operands(value)[1].shape) == 1:
        attrs["axis"] = inverse(perm)[view(value.node).axis(1, len(perm))]
    weights = operands(value)[0].array
    assert weights is not None
    return make_node("DequantizeLinear", (constant(np.ascontiguousarray(weights.transpose(perm))), *rest), attrs).out


def _through(move: Callable[[Node, Moved], Replacement]) -> Callable[[Node, Rewriter], Replacement]:
    def apply(node: Node, rewriter: Rewriter) -> Replacement:
        source = moved(node.inputs[0])
        return None if source is None or source.perm == tuple(range(len(source.perm))) else move(node, source)

    return apply


REDUCTIONS = frozenset({"ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"})

RULES = (
    Rule("transpose", frozenset({"Transpose"}), _through(_transpose)),
    Rule("dequantized", frozenset({"Transpose"}), _dequantized),
    Rule("reshape", frozenset({"Reshape"}), _through(_reshape)),
    Rule("concat", frozenset({"Concat"}), _concat),
    Rule("reduce", REDUCTIONS, _through(_reduce)),
    Rule("arg", frozenset({"ArgMax", "ArgMin"}), _through(_arg)),
    Rule("along", frozenset({"Softmax", "LogSoftmax", "TopK"}), _through(_along)),
    Rule("scan", frozenset({"CumSum", "CumProd"}), _through(_scan)),
    Rule("slice", frozenset({"Slice"}), _through(_slice)),
    Rule("pad", frozenset({"Pad"}), _through(_pad)),
    Rule("expand", frozenset({"Expand"}), _through(_expand)),
    Rule("gather", frozenset({"Gather"}), _through(_gather)),
    Rule("normalization", frozenset({"LayerNormalization", "RMSNormalization"}), _through(_normalization)),
    Rule("quantize", frozenset({"QuantizeLinear", "DequantizeLinear"}), _through(_quantize)),
    Rule("flattened", frozenset({"MatMul"}), _flattened),
    Rule("elementwise", frozenset(), _elementwise),
)
