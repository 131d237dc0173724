"""Every value is computed once: equal operations on equal inputs become one node, and equal constants one leaf."""

from typing import Any

import numpy as np

from redline.ir import CONSTANT, INPUT, Graph, Node, Rewriter, Rule
from redline.ir.rewrite import Replacement

NUM_SAMPLES = 64


def run(graph: Graph) -> Graph:
    """One walk suffices: inputs come before their readers."""
    return Rewriter(graph).walk([Rule("eliminate_common_subexpressions", frozenset(), _Seen().first)])


class _Seen:
    """The nodes met so far in a walk, by what they compute."""

    def __init__(self) -> None:
        self._nodes: dict[Any, Node] = {}
        self._constants: dict[Any, list[Node]] = {}

    def first(self, node: Node, rewriter: Rewriter) -> Replacement:
        """f(x), f(x) -> f(x) once"""
        if node.op == INPUT:
            return None
        known = self._same_constant(node) if node.op == CONSTANT else self._nodes.setdefault(_key(node), node)
        return None if known is node else known.outputs()

    def _same_constant(self, node: Node) -> Node:
        array = node.attrs["value"]
        bucket = self._constants.setdefault((node.types, _sample(array)), [])
        for other in bucket:
            if np.array_equal(_bytes(array), _bytes(other.attrs["value"])):
                return other
        bucket.append(node)
        return node


def _bytes(array: np.ndarray) -> np.ndarray:
    """The elements as bytes, so that NaN equals itself and -0 differs from 0."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _sample(array: np.ndarray) -> bytes:
    """A few elements: enough to tell most arrays apart without reading them whole."""
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // NUM_SAMPLES)].tobytes()


def _key(node: Node) -> Any:
    attrs = tuple(sorted((name, _frozen(value)) for name, value in node.attrs.items()))
    return node.op, node.inputs, node.types, attrs


def _frozen(value: Any) -> str | bytes:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    return repr(list(value)) if isinstance(value, list | tuple) else repr(value)
