"""Matrix products of one input by several constant weights become one product and slices of it, as for Q, K and V.

A product is merged only where its result is read as a view: what would fuse with the product itself stays apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import shapes
from redline.ir import Graph, Node, Value, constant, substitute
from redline.ops import make
from redline.ops.slicing import sliced
from redline.passes.algebra import operands
from redline.passes.linear import linear, per_channel

VIEWED_BY = frozenset({"Reshape", "Transpose", "Slice", "Attention", "MatMul"})


@dataclass(frozen=True)
class Projection:
    """out = x W + bias"""

    x: Value
    out: Value
    weights: np.ndarray
    bias: np.ndarray | None


def run(graph: Graph) -> Graph:
    """MatMul(x, W1) + b1, MatMul(x, W2) + b2 -> slices of MatMul(x, [W1 W2]) + [b1 b2]"""
    groups: dict[Value, list[Projection]] = {}
    for found in _projections(graph):
        groups.setdefault(found.x, []).append(found)
    replacements: dict[Value, Value] = {}
    for group in groups.values():
        if len(group) > 1:
            replacements |= _merged(group)
    return substitute(graph, replacements)


def _projections(graph: Graph) -> list[Projection]:
    readers = graph.readers
    kept = {value for _, value in graph.outputs}
    found = [_projection(node, readers) for node in graph.nodes if node.op == "MatMul"]
    return [
        p for p in found
        if p is not None and p.out not in kept and all(reader.op in VIEWED_BY for reader in readers.get(p.out, ()))
    ]  # fmt: skip


def _projection(node: Node, readers: Mapping[Value, Sequence[Node]]) -> Projection | None:
    product = linear(node.out)
    if product is None:
        return None
    x = operands(node.out)[0]
    if [reader.op for reader in readers.get(node.out, [])] == ["Add"]:
        total = readers[node.out][0].out
        bias = per_channel(operands(total)[1], total, len(total.shape) - 1) if total.type == node.out.type else None
        if bias is not None:
            return Projection(x, total, product.weights, bias)
    return Projection(x, node.out, product.weights, None)


def _merged(group: Sequence[Projection]) -> dict[Value, Value]:
    kind = group[0].weights.dtype
    out = make("MatMul", group[0].x, constant(np.concatenate([p.weights for p in group], axis=1)))
    widths = [p.weights.shape[1] for p in group]
    if any(p.bias is not None for p in group):
        biases = [np.zeros(n) if p.bias is None else p.bias for p, n in zip(group, widths, strict=True)]
        out = make("Add", out, constant(np.concatenate(biases).astype(kind)))
    ends, last = np.cumsum(widths).tolist(), len(shapes.static(out.shape)) - 1
    return {p.out: sliced(out, last, end - n, end) for p, n, end in zip(group, widths, ends, strict=True)}
