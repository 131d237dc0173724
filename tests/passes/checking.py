"""Checks a pass against the interpreter: the same outputs before and after, to a few units in the last place.

A comparison that a wrong rewrite could pass is worth nothing, so the tolerance is in units of the result's own type
and NaN, infinities and types must agree exactly; test_checking.py plants errors to hold it to that.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

from redline import ops
from redline.base import dtypes
from redline.ir import CONSTANT, INPUT, Graph, Node, TensorType, Value, constant, input_node
from redline.ir.verify import verify

Pass = Callable[[Graph], Graph]
BOUNDARY = (0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -3.0, 6.0, -6.0, 100.0, -100.0, 1e-40, np.nan, np.inf, -np.inf, 3e38)


def arg(shape: Sequence[int] = (3, 17), dtype: str = "float32", name: str = "x") -> Value:
    """A graph input."""
    return input_node(name, TensorType(dtypes.from_name(dtype), tuple(shape))).out


def const(array: object, dtype: str = "float32") -> Value:
    return constant(np.asarray(array).astype(dtypes.from_name(dtype).numpy))


def weights(*shape: int, seed: int = 1) -> Value:
    return constant(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def ints(*values: int) -> Value:
    return constant(np.array(values, np.int64))


def graph_of(*values: Value) -> Graph:
    outputs = tuple((f"y{i}", value) for i, value in enumerate(values))
    found = [node for node in Graph("test", (), outputs).nodes if node.op == INPUT]
    return Graph("test", tuple(sorted(found, key=lambda node: node.name)), outputs)


def names(graph: Graph) -> list[str]:
    """The operators of a graph, sorted."""
    return sorted(node.op for node in graph.operations)


def histogram(graph: Graph) -> Counter[str]:
    return Counter(names(graph))


def only(graph: Graph, op: str) -> Node:
    """The one node of that operator."""
    (found,) = (node for node in graph.operations if node.op == op)
    return found


def constants(graph: Graph) -> list[np.ndarray]:
    return [node.attrs["value"] for node in graph.nodes if node.op == CONSTANT]


def samples(node: Node, rng: np.random.Generator, boundary: Sequence[float]) -> list[np.ndarray]:
    """Two arrays for an input: random, and made of boundary values in random order."""
    kind, shape = node.types[0].dtype, node.types[0].shape
    if kind == dtypes.bool_:
        return [rng.random(shape) < 0.5, rng.random(shape) < 0.9]
    if kind.is_integer:
        info = np.iinfo(kind.numpy)
        low = max(-9, info.min)
        return [
            rng.integers(low, 10, shape).astype(kind.numpy),
            rng.choice([0, 1, low, info.max, info.min], shape).astype(kind.numpy),
        ]
    random = rng.standard_normal(shape) * 3
    with np.errstate(all="ignore"):
        special = rng.choice(np.array(boundary or (1.0,)), shape)
        return [random.astype(kind.numpy), special.astype(kind.numpy)]


def compare(actual: np.ndarray, expected: np.ndarray, ulps: float, of_largest: bool = False) -> None:
    """Raises AssertionError unless the arrays agree to ``ulps`` of each element, or of the largest finite one."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, f"{actual.dtype}{actual.shape}"
    if not dtypes.from_numpy(actual.dtype).is_float:
        np.testing.assert_array_equal(actual, expected)
        return
    eps, tiny = ml_dtypes.finfo(actual.dtype).eps, ml_dtypes.finfo(actual.dtype).tiny
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(e)
    np.testing.assert_array_equal(a[~finite], e[~finite])
    size = np.abs(e[finite])
    if of_largest and size.size:
        size = np.full_like(size, size.max())
    excess = np.abs(a[finite] - e[finite]) - ulps * float(eps) * np.maximum(size, float(tiny))
    assert np.all(excess <= 0), f"off by {np.max(excess)} more than {ulps} units"


def check(run: Pass, *values: Value, ulps: float = 0, of_largest: bool = False, boundary: Sequence[float] = BOUNDARY) -> Graph:
    """Runs a pass on the graph of ``values``, compares every output on random and boundary inputs, returns the new graph."""
    graph = graph_of(*values)
    verify(graph, ops.infer)
    new = run(graph)
    verify(new, ops.infer)
    assert new.inputs == graph.inputs and [n for n, _ in new.outputs] == [n for n, _ in graph.outputs]
    rng = np.random.default_rng(0)
    drawn = {node.name: samples(node, rng, boundary) for node in graph.inputs}
    for which in range(2 if boundary else 1):
        feed = {name: arrays[which] for name, arrays in drawn.items()}
        expected, actual = ops.run(graph, feed), ops.run(new, feed)
        for name in expected:
            compare(actual[name], expected[name], ulps, of_largest)
    return new


def unchanged(run: Pass, *values: Value) -> None:
    """Asserts that a pass leaves the graph of ``values`` as it is."""
    graph = graph_of(*values)
    assert str(run(graph)) == str(graph)
