"""Short ways to build one node, evaluate it whole, and evaluate what it decomposes into."""

from typing import Any

import numpy as np

from redline import ops
from redline.base import dtypes
from redline.base.shapes import Shape
from redline.ir import Graph, Node, TensorType, Value, constant, input_node
from redline.passes import decompose


def ints(*values: int) -> Value:
    return constant(np.array(values, np.int64))


def symbolic(shape: Shape, dtype: dtypes.DType = dtypes.float32, name: str = "x") -> Value:
    """A graph input of any shape, open dimensions included."""
    return input_node(name, TensorType(dtype, shape)).out


def shape_of(op: str, *inputs: Value | None, **attrs: Any) -> Shape:
    """The shape that inference gives the first output."""
    return ops.make(op, *inputs, **attrs).shape


def both(op: str, *inputs: Any, outputs: int = 1, **attrs: Any) -> np.ndarray:
    """The first output by the reference, after asserting that the decomposition gives the same to all outputs.

    Arrays become graph inputs; values (constants) and None are taken as they are.
    """
    declared: list[Node] = []
    values: list[Value | None] = []
    feeds: dict[str, np.ndarray] = {}
    for i, item in enumerate(inputs):
        if isinstance(item, np.ndarray):
            declared.append(input_node(f"x{i}", TensorType(dtypes.from_numpy(item.dtype), item.shape)))
            feeds[f"x{i}"] = item
            item = declared[-1].out
        values.append(item)
    node = ops.make_node(op, values, attrs, num_outputs=outputs)
    graph = Graph(op, tuple(declared), tuple((f"y{i}", value) for i, value in enumerate(node.outputs())))
    whole = ops.run(graph, feeds)
    apart = ops.run(decompose.run(graph, whole=frozenset()), feeds)
    for value, name in zip(node.outputs(), whole, strict=True):
        assert whole[name].dtype == value.dtype.numpy and whole[name].shape == value.shape
        assert apart[name].dtype == value.dtype.numpy and apart[name].shape == value.shape
        rtol = 1e-2 if value.dtype.name in ("float16", "bfloat16") else 1e-5
        wanted, seen = (a.astype(np.float64) if value.dtype.is_float else a for a in (whole[name], apart[name]))
        np.testing.assert_allclose(seen, wanted, rtol=rtol, atol=1e-6)
    return whole["y0"]


def all_reduced(op: str, x: np.ndarray, **attrs: Any) -> np.ndarray:
    """A reduction over all axes without keeping them, whole and taken apart."""
    return both(op, x, keepdims=0, **attrs)
