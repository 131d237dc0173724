"""Constants of a chain of additions or multiplications meet, to be folded into one."""

import numpy as np

from redline.ir import Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make
from redline.passes.constants import like, wide


def run(graph: Graph) -> Graph:
    return rewrite(graph, RULES)[0]


def _chain(node: Node, rewriter: Rewriter) -> Value | None:
    """(x + a) + b -> x + (a + b);  (x * a) * b -> x * (a * b), for constants that stay finite and grow no shape"""
    inner, b = node.inputs
    if inner is None or b is None or b.array is None or inner.op != node.op:
        return None
    x, a = inner.node.inputs
    if a is None or a.array is None:
        return None
    function = np.add if node.op == "Add" else np.multiply
    with np.errstate(all="ignore"):
        joined = like(function(wide(a.array), wide(b.array)), b)
    if joined.size > max(a.array.size, b.array.size) or not _is_sound(node.op, a.array, b.array, joined):
        return None
    return make(node.op, x, constant(joined))


def _is_sound(op: str, a: np.ndarray, b: np.ndarray, joined: np.ndarray) -> bool:
    """Whether the joined constant is finite, and neither an overflow nor an underflow of its own making."""
    finite = all(np.isfinite(wide(array)).all() for array in (a, b, joined))
    return finite and (op == "Add" or bool(np.all((joined != 0) | (a == 0) | (b == 0))))


RULES = (Rule("chain", frozenset({"Add", "Mul"}), _chain),)
