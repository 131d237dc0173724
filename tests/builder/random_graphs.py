"""Random small graphs of everything that fusion, placement and the memory plan have to get right together.

A graph grows node by node on values drawn from those there are, so values have several readers, are moved before and
after they are computed, are concatenated, reduced and multiplied, and are outputs of the graph while others read them.
Functions with jumps only see integers, or a rounding error would decide the answer.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from redline import ops
from redline.base import dtypes
from redline.base.shapes import size
from redline.ir import Graph, Node, TensorType, Value, constant, input_node

MAX_ELEMENTS = 2000
EXTENTS = (1, 2, 3, 4, 5, 8, 17)
SMOOTH = ("Neg", "Abs", "Relu", "Sigmoid", "Tanh", "Erf", "HardSwish", "LeakyRelu", "Softplus", "Identity")
INTEGER_UNARY = ("Neg", "Abs", "Sign", "Identity")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
COMPARE = ("Less", "GreaterOrEqual", "Equal")
T = TypeVar("T")


@dataclass
class Growing:
    """The graph so far. ``values`` are what a new node may read."""

    random: random.Random
    inputs: list[Node] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    def pick(self, accept: Callable[[Value], bool] = lambda value: True) -> Value | None:
        """One of the values, later ones more often; None where none is accepted."""
        fitting = [value for value in self.values if accept(value)]
        if not fitting:
            return None
        recent = fitting[-3:]
        return self.random.choice(fitting + recent + recent)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def choice(self, options: Sequence[T]) -> T:
        return self.random.choice(options)


def dims(value: Value) -> tuple[int, ...]:
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def ints(*numbers: int) -> Value:
    return constant(np.array(numbers, np.int64))


def single(op: str, *inputs: Value | None, **attrs: Any) -> Value:
    """A node of one output, where ``ops.make`` gives it every output that its operator may have."""
    return ops.make_node(op, inputs, attrs, num_outputs=1).out


def is_float(value: Value) -> bool:
    return value.dtype.is_float


def filled(g: Growing, shape: tuple[int, ...], dtype: dtypes.DType) -> Value:
    """A constant of that type."""
    rng = np.random.default_rng(g.integer(0, 99))
    if dtype == dtypes.bool_:
        return constant(rng.random(shape) < 0.5)
    values = rng.integers(-3, 4, shape) if dtype.is_integer else rng.standard_normal(shape)
    return constant(np.asarray(values).astype(dtype.numpy))


def unary(g: Growing) -> Value | None:
    x = g.pick(lambda v: v.dtype != dtypes.bool_)
    return x and ops.make(g.choice(SMOOTH if is_float(x) else INTEGER_UNARY), x)


def partner(g: Growing, x: Value) -> Value:
    """What broadcasts with ``x``: another value, or a constant of a part of its shape."""
    other = g.pick(lambda v: v.dtype == x.dtype and fits(dims(x), dims(v)))
    if other is not None and g.integer(0, 3):
        return other
    shape = tuple(d if g.integer(0, 2) else 1 for d in dims(x))
    return filled(g, shape[g.integer(0, len(shape)) if shape else 0 :], x.dtype)


def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return size(np.broadcast_shapes(a, b)) <= MAX_ELEMENTS
    except ValueError:
        return False


def binary(g: Growing) -> Value | None:
    x = g.pick(lambda v: v.dtype != dtypes.bool_)
    if x is None:
        return None
    pair = [x, partner(g, x)][:: g.choice((1, -1))]
    op = g.choice(BINARY)
    if op == "Mul" and is_float(x):  # keeps magnitudes where they are
        pair[1] = ops.make("Tanh", pair[1])
    if op == "Mul" and not is_float(x):
        pair[1] = ops.make("Sign", pair[1])
    return ops.make(op, *pair)


def divide(g: Growing) -> Value | None:
    x = g.pick(is_float)
    if x is None:
        return None
    below = ops.make("Softplus", partner(g, x))
    return ops.make("Div", x, ops.make("Add", below, constant(np.asarray(1, x.dtype.numpy))))


def select(g: Growing) -> Value | None:
    x, number = g.pick(lambda v: v.dtype != dtypes.bool_), g.pick(lambda v: v.dtype.is_integer)
    if x is None or number is None or not fits(dims(x), dims(number)):
        return None
    condition = ops.make(g.choice(COMPARE), number, filled(g, (), number.dtype))
    return ops.make("Where", condition, x, filled(g, (), x.dtype))


def cast(g: Growing) -> Value | None:
    x = g.pick(lambda v: not is_float(v))
    return x and ops.make("Cast", x, to=g.choice((1, 11, 6, 7)))


def transpose(g: Growing) -> Value | None:
    x = g.pick(lambda v: len(v.shape) > 1)
    return x and ops.make("Transpose", x, perm=tuple(g.random.sample(range(len(x.shape)), len(x.shape))))


def reshape(g: Growing) -> Value | None:
    x = g.pick()
    if x is None:
        return None
    shape, rest = [], size(dims(x))
    while rest > 1 and len(shape) < 4:
        factor = g.choice([d for d in range(1, rest + 1) if rest % d == 0])
        shape.append(factor)
        rest //= factor
    return ops.make("Reshape", x, ints(*shape, *([rest] if rest != 1 else [])))


def slice_(g: Growing) -> Value | None:
    x = g.pick(lambda v: bool(v.shape))
    if x is None:
        return None
    axis = g.integer(0, len(x.shape) - 1)
    extent = dims(x)[axis]
    begin, step = g.integer(0, extent - 1), g.choice((1, 1, 1, 2, -1, -2))
    end = g.integer(begin + 1, extent) if step > 0 else -extent - 1 + g.integer(0, begin)
    return ops.make("Slice", x, ints(begin), ints(end), ints(axis), ints(step))


def concat(g: Growing) -> Value | None:
    x = g.pick(lambda v: bool(v.shape))
    if x is None:
        return None
    axis, shape = g.integer(0, len(x.shape) - 1), dims(x)

    def joins(v: Value) -> bool:
        other = dims(v)
        return v.dtype == x.dtype and len(other) == len(shape) and all(
            a == b for i, (a, b) in enumerate(zip(shape, other, strict=True)) if i != axis
        )  # fmt: skip

    parts = [x, *(g.pick(joins) for _ in range(g.integer(1, 2)))]
    total = size(shape) // shape[axis] * sum(dims(p)[axis] for p in parts if p is not None)
    return ops.make("Concat", *parts, axis=axis) if total <= MAX_ELEMENTS else None


def pad(g: Growing) -> Value | None:
    x = g.pick(lambda v: bool(v.shape) and v.dtype != dtypes.bool_ and size(dims(v)) < MAX_ELEMENTS // 8)
    if x is None:
        return None
    pads = [g.choice((0, 0, 1, 2)) for _ in range(2 * len(x.shape))]
    return ops.make("Pad", x, ints(*pads), filled(g, (), x.dtype), mode="constant")


def expand(g: Growing) -> Value | None:
    x = g.pick(lambda v: 4 * size(dims(v)) <= MAX_ELEMENTS)
    if x is None:
        return None
    shape = [d if d > 1 else g.choice((1, 2)) for d in dims(x)]
    return ops.make("Expand", x, ints(*([2] if g.integer(0, 1) and len(shape) < 4 else []), *shape))


def gather(g: Growing) -> Value | None:
    x = g.pick(lambda v: bool(v.shape))
    if x is None:
        return None
    axis = g.integer(0, len(x.shape) - 1)
    extent = dims(x)[axis]
    picked = [g.integer(-extent, extent - 1) for _ in range(g.integer(1, 3))]
    indices = constant(np.array(picked[0] if g.integer(0, 3) == 0 else picked, np.int64))
    return ops.make("Gather", x, indices, axis=axis)


def reduce(g: Growing) -> Value | None:
    x = g.pick(lambda v: bool(v.shape) and v.dtype != dtypes.bool_)
    if x is None:
        return None
    axes = g.random.sample(range(len(x.shape)), g.integer(1, len(x.shape)))
    op = g.choice(("ReduceSum", "ReduceMax", "ReduceMin", *(("ReduceMean",) if is_float(x) else ())))
    return ops.make(op, x, ints(*axes), keepdims=g.integer(0, 1))


def along_rows(g: Growing) -> Value | None:
    x = g.pick(lambda v: bool(v.shape) and is_float(v))
    if x is None:
        return None
    axis = g.integer(0, len(x.shape) - 1)
    op = g.choice(("Softmax", "LogSoftmax", "LayerNormalization", "CumSum"))
    if op == "CumSum":
        return ops.make(op, x, constant(np.array(axis, np.int64)), reverse=g.integer(0, 1), exclusive=g.integer(0, 1))
    if op == "LayerNormalization":
        return single(op, x, filled(g, dims(x)[axis:], x.dtype), axis=axis, stash_type=x.dtype.onnx)
    return ops.make(op, x, axis=axis)


def matmul(g: Growing) -> Value | None:
    a = g.pick(lambda v: is_float(v) and len(v.shape) >= 2)
    if a is None:
        return None
    inner = dims(a)[-1]
    b = g.pick(lambda v: v.dtype == a.dtype and len(v.shape) >= 2 and dims(v)[-2] == inner and fits(dims(a)[:-2], dims(v)[:-2]))
    if b is None or g.integer(0, 1):
        b = filled(g, (inner, g.choice(EXTENTS)), a.dtype)
    batch = size(np.broadcast_shapes(dims(a)[:-2], dims(b)[:-2]))
    if batch * dims(a)[-2] * dims(b)[-1] > MAX_ELEMENTS:
        return None
    return ops.make("MatMul", a, b)


def image(g: Growing) -> Value | None:
    """A convolution or a pool of what looks like an image."""
    x = g.pick(lambda v: v.dtype == dtypes.float32 and len(v.shape) in (3, 4) and min(dims(v)[2:]) > 1)
    if x is None:
        return None
    channels, spatial = dims(x)[1], len(x.shape) - 2
    if g.integer(0, 1):
        op = g.choice(("MaxPool", "AveragePool"))
        return single(op, x, kernel_shape=(2,) * spatial, strides=(g.choice((1, 2)),) * spatial)
    taps = (g.choice((1, 2)),) * spatial
    depthwise = g.integer(0, 1) == 0
    shape = (channels, 1, *taps) if depthwise else (g.choice((1, 3, 8, 16)), channels, *taps)
    if size(shape[:1]) * size(dims(x)) // channels > MAX_ELEMENTS:
        return None
    bias = filled(g, shape[:1], x.dtype) if g.integer(0, 1) else None
    pads = (g.choice((0, 1)),) * (2 * spatial) if taps[0] > 1 else (0,) * (2 * spatial)
    return ops.make("Conv", x, filled(g, shape, x.dtype), bias, pads=pads, group=channels if depthwise else 1)


KINDS = (
    unary, unary, unary, binary, binary, binary, binary, divide, select, cast, transpose, transpose, reshape, reshape, slice_,
    slice_, concat, concat, pad, expand, gather, reduce, reduce, along_rows, along_rows, matmul, matmul, image, image, image,
)  # fmt: skip


def grown(seed: int, num_nodes: int) -> Graph:
    """A graph of up to ``num_nodes`` nodes; fewer nodes of one seed are the beginning of more."""
    g = Growing(random.Random(seed))
    dtype = g.choice((dtypes.float32, dtypes.float32, dtypes.float64))
    for i in range(g.integer(1, 3)):
        kind = g.choice((dtype, dtype, dtype, dtypes.int64, dtypes.int32))
        shape = tuple(g.choice(EXTENTS) for _ in range(g.choice((0, 1, 2, 2, 3, 3, 4))))
        while size(shape) > MAX_ELEMENTS:
            shape = shape[1:]
        g.inputs.append(input_node(f"x{i}", TensorType(kind, shape)))
        g.values.append(g.inputs[-1].out)
    made = 0
    while made < num_nodes:
        value = g.choice(KINDS)(g)
        if value is not None:
            g.values.append(value)
            made += 1
    return Graph("random", tuple(g.inputs), outputs_of(g))


def graphs(max_nodes: int = 24) -> st.SearchStrategy[Graph]:
    return st.builds(grown, st.integers(0, 2**32), st.integers(1, max_nodes))


def outputs_of(g: Growing) -> tuple[tuple[str, Value], ...]:
    """The last value, and some of the others: inputs, values that others read, one of them twice."""
    found = [g.values[-1], *(value for value in g.values[:-1] if g.integer(0, 4) == 0)]
    if g.integer(0, 7) == 0:
        found.append(found[0])
    return tuple((f"y{i}", value) for i, value in enumerate(found))


def feeds_of(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    feeds = {}
    for node in graph.inputs:
        shape, dtype = dims(node.out), node.types[0].dtype
        values = rng.integers(-4, 5, shape) if dtype.is_integer else rng.standard_normal(shape)
        feeds[node.name] = np.asarray(values).astype(dtype.numpy)
    return feeds
