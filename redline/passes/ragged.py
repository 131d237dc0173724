"""A graph for one sequence becomes a graph for several that lie one behind the other, without padding.

In: the graph optimized for one sequence of T tokens, and the same for the longest sequence, by which the axes that count
tokens are told from others and the tables of positions are known whole. Out: the graph with three more inputs,

    positions [1, T]    where in its sequence each token is
    starts, lengths [N] where each sequence begins, and how long it is

What works token by token stays as it is. Attention stays within its sequence, a table of positions is read by each token's
own position, and what is taken or computed from all tokens of a sequence (its first token, sums, means, maxima) becomes one
row a sequence: axis 0 of such values, 1 before, is N from there on. Everything else that mixes tokens is refused.
"""

import math
from collections.abc import Sequence

import numpy as np

from redline.base import dtypes
from redline.base.errors import BuildError, RedlineError
from redline.base.shapes import StaticShape, static
from redline.ir import CONSTANT, INPUT, Graph, Node, TensorType, Value, constant, input_node
from redline.ops import ELEMENTWISE, make, make_node
from redline.ops.attention_form import MASK
from redline.ops.reduce import reduced_axes
from redline.ops.registry import view
from redline.ops.rules import cast, reshaped
from redline.ops.slicing import slice_spans

POSITIONS, STARTS, LENGTHS = "positions", "starts", "lengths"
ROWS = frozenset({"LayerNormalization", "RMSNormalization", "Softmax", "LogSoftmax"})
NEUTRAL = {"ReduceSum": 0.0, "ReduceMean": 0.0, "ReduceMax": -math.inf, "ReduceMin": math.inf}


def run(graph: Graph, longest: Graph, sequences: int) -> Graph:
    """``graph`` for ``sequences`` sequences; raises BuildError naming the first node that mixes tokens in another way."""
    return _Packing(graph, longest, sequences).run()


class _Packing:
    def __init__(self, graph: Graph, longest: Graph, sequences: int) -> None:
        self.graph, self.sequences = graph, sequences
        if [node.op for node in graph.nodes] != [node.op for node in longest.nodes]:
            raise BuildError("ragged", "the model has another form at other lengths", "", "build it without ragged")
        self.twins = dict(zip(graph.nodes, longest.nodes, strict=True))
        self.most = max(t.shape[a] for n, t in self._types() for a in self.token_axes(n.out))  # type: ignore[type-var]
        self.tokens = next(n.types[0].shape[a] for n in graph.nodes for a in self.token_axes(n.out))
        kind = lambda *shape: TensorType(dtypes.int64, shape)  # noqa: E731
        self.extra = (
            input_node(POSITIONS, kind(1, self.tokens)), input_node(STARTS, kind(sequences)),
            input_node(LENGTHS, kind(sequences)),
        )  # fmt: skip
        self.positions, self.starts, self.lengths = (node.out for node in self.extra)
        self.mapped: dict[Value, Value] = {}
        self.rows: set[Value] = set()  # new values that have one row a sequence

    def _types(self) -> list[tuple[Node, TensorType]]:
        return [(node, self.twins[node].types[0]) for node in self.graph.nodes]

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if len(node.types) > 1:
                raise self.refusal(node, "it has several results")
            try:
                self.mapped[node.out] = self.leaf(node) if node.op in (INPUT, CONSTANT) else self.operation(node)
            except RedlineError as error:
                if isinstance(error, BuildError):
                    raise
                raise self.refusal(node, error.seen) from error
        names = {node.name for node in self.extra} & {node.name for node in self.graph.inputs}
        if names:
            raise BuildError("ragged", f"the model has inputs of its own named {sorted(names)}", "", "rename them")
        outputs = tuple((name, self.mapped[value]) for name, value in self.graph.outputs)
        return Graph(self.graph.name, (*self.graph.inputs, *self.extra), outputs)

    def refusal(self, node: Node, why: str) -> BuildError:
        seen = f"{node.op} {node.name!r} mixes the tokens of a sequence: {why}"
        return BuildError("ragged", seen, "attention, and a first token, sum, mean or maximum", "build it without ragged")

    def token_axes(self, value: Value) -> tuple[int, ...]:
        """The axes of a value of the graph that are as long as the sequence."""
        shape, other = value.shape, self.twins[value.node].types[value.index].shape
        if len(shape) != len(other):
            raise BuildError("ragged", f"{value} has another rank at other lengths", "", "build it without ragged")
        return tuple(axis for axis, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b)

    # leaves

    def leaf(self, node: Node) -> Value:
        axes = self.token_axes(node.out)
        if node.op == INPUT or not axes:
            return node.out
        table = self.twins[node].attrs["value"]
        if len(axes) > 1:
            raise self.refusal(node, "a constant of two lengths")
        own = node.attrs["value"]
        if not np.array_equal(table[tuple(map(slice, own.shape))], own):
            raise self.refusal(node, "a constant that is no beginning of itself at greater lengths")
        first = table.take([0], axes[0])
        if np.array_equal(np.broadcast_to(first, table.shape), table):
            return constant(np.ascontiguousarray(first), node.name)
        return make("Gather", constant(table, node.name), reshaped(self.positions, (self.tokens,)), axis=axes[0])

    # operations

    def operation(self, node: Node) -> Value:
        inputs = tuple(v and self.mapped[v] for v in node.inputs)
        if node.op == "Expand" and self.is_only_a_mask(node.out):
            return self.mapped[self.data(node)]  # attention expands its mask itself
        per_sequence = [v in self.rows for v in inputs if v is not None]
        per_token = [bool(self.token_axes(v)) and self.mapped[v] not in self.rows for v in node.inputs if v is not None]
        if any(per_sequence):
            if any(per_token):
                raise self.refusal(node, "what a sequence has in common goes back to its tokens")
            return self.of_sequences(node, inputs)
        if not any(per_token):
            return node.with_inputs(inputs).out
        return self.of_tokens(node, inputs)

    def of_tokens(self, node: Node, inputs: Sequence[Value | None]) -> Value:
        if node.op == "Attention":
            return self.attention(node, inputs)
        if node.op in NEUTRAL and set(reduced_axes(view(node))) & set(self.token_axes(self.data(node))):
            return self.pooled(node, inputs[0])
        if node.op == "Slice" and self.token_axes(self.data(node)) != self.token_axes(node.out):
            return self.first(node, inputs[0])
        if not self.is_token_by_token(node):
            raise self.refusal(node, "it is not known to work token by token")
        value = make_node(node.op, inputs, node.attrs, name=node.name, origin=node.origin).out
        if sum(1 for axis in self.token_axes(node.out) if value.shape[axis] == self.tokens) > 1:
            raise self.refusal(node, "its result has a row and a column for each token")
        return value

    def is_only_a_mask(self, value: Value) -> bool:
        readers = self.graph.readers.get(value, ())
        masks = all(node.op == "Attention" and value not in node.inputs[:MASK] for node in readers)
        return masks and all(value != output for _, output in self.graph.outputs)

    def data(self, node: Node) -> Value:
        value = node.inputs[0]
        assert value is not None, f"{node} has no data"
        return value

    def is_token_by_token(self, node: Node) -> bool:
        """Whether an element of the result comes from elements of the same token."""
        if node.op in ELEMENTWISE or node.op in ("Cast", "Transpose", "Identity", "Expand"):
            return True
        axes, rank = self.token_axes(self.data(node)), len(self.data(node).shape)
        if node.op in ROWS:
            return rank - 1 not in axes and view(node).axis(-1, rank) == rank - 1
        if node.op.startswith("Reduce"):
            return not set(reduced_axes(view(node))) & set(axes)
        if node.op == "MatMul":
            others = [self.token_axes(v) for v in node.inputs[1:] if v is not None]
            return rank - 1 not in axes and not any(others)
        if node.op == "Reshape":
            return self.keeps_tokens(node)
        if node.op in ("Slice", "Concat"):
            return self.token_axes(node.out) == axes
        return node.op == "Gather" and not axes

    def keeps_tokens(self, node: Node) -> bool:
        """A Reshape with as many elements before the axis of tokens as before, and behind it."""
        before, after = self.token_axes(self.data(node)), self.token_axes(node.out)
        if len(before) != 1 or len(after) != 1:
            return False
        shapes = static(self.data(node).shape), static(node.out.shape)
        return math.prod(shapes[0][: before[0]]) == math.prod(shapes[1][: after[0]])

    def attention(self, node: Node, inputs: Sequence[Value | None]) -> Value:
        mask = inputs[MASK] if len(inputs) > MASK else None
        if any(self.token_axes(v) != (2,) for v in node.inputs[:3] if v is not None):
            raise self.refusal(node, "keys of another length than the queries")
        if mask is not None and len(mask.shape) > 1 and mask.shape[-2] != 1:
            raise self.refusal(node, "a mask that differs from query to query")
        operands = (*inputs[:3], mask, self.starts, self.lengths)
        return make_node("RaggedAttention", operands, node.attrs, name=node.name, origin=node.origin).out

    # one row a sequence

    def first(self, node: Node, value: Value | None) -> Value:
        """Slice [1, T, ...] -> [1, 1, ...] of the first token: [N, 1, ...]."""
        assert value is not None
        axes, taken = self.token_axes(self.data(node)), slice_spans(view(node))
        whole = all(s.count == e and s.step == 1 for s, e in zip(taken[2:], value.shape[2:], strict=True))
        if axes != (1,) or value.shape[0] != 1 or (taken[1].start, taken[1].count) != (0, 1) or not whole:
            raise self.refusal(node, "other tokens than the first are taken")
        rows = make("Gather", value, self.starts, axis=1)  # [1, N, ...]
        return self.row(reshaped(rows, (self.sequences, 1, *value.shape[2:])))

    def pooled(self, node: Node, value: Value | None) -> Value:
        """Reduce [1, T, ...] over T: each sequence reads as far as the longest could be, and leaves out what is not its own."""
        assert value is not None
        if self.token_axes(self.data(node)) != (1,) or reduced_axes(view(node)) != (1,) or value.shape[0] != 1:
            raise self.refusal(node, "other axes than that of tokens are reduced")
        steps = constant(np.arange(self.most, dtype=np.int64)[None])  # type: ignore[arg-type]
        column = lambda v: reshaped(v, (self.sequences, 1))  # noqa: E731
        (tokens,) = static((self.tokens,), node.name)
        index = make("Min", make("Add", column(self.starts), steps), constant(np.array(tokens - 1, np.int64)))
        inside = reshaped(make("Less", steps, column(self.lengths)), (self.sequences, self.most, *[1] * (len(value.shape) - 2)))
        rest = value.shape[2:]
        read = make("Gather", reshaped(value, (self.tokens, *rest)), index, axis=0)  # [N, longest, ...]
        neutral = constant(np.array(NEUTRAL[node.op], value.dtype.numpy))
        kind = "ReduceSum" if node.op == "ReduceMean" else node.op
        keep = bool(view(node).attr("keepdims", 1))
        answer = make(kind, make("Where", inside, read, neutral), constant(np.array([1], np.int64)), keepdims=int(keep))
        if node.op == "ReduceMean":
            count = reshaped(self.lengths, (self.sequences, *[1] * (len(answer.shape) - 1)))
            answer = make("Div", answer, cast(count, value.dtype))
        return self.row(answer)

    def row(self, value: Value) -> Value:
        self.rows.add(value)
        return value

    def of_sequences(self, node: Node, inputs: Sequence[Value | None]) -> Value:
        """An operation on values of one row a sequence, which must not mix them."""
        fixed = list(inputs)
        if node.op in ("Reshape", "Expand"):
            fixed[1] = self.with_rows(node)
        elif not self.is_row_by_row(node):
            raise self.refusal(node, "it is not known to work sequence by sequence")
        value = make_node(node.op, fixed, node.attrs, name=node.name, origin=node.origin).out
        if value.shape != (self.sequences, *node.out.shape[1:]):
            raise self.refusal(node, f"{node.out.shape} becomes {value.shape}")
        return self.row(value)

    def with_rows(self, node: Node) -> Value:
        """The shape that a Reshape or Expand gives, with N for its leading 1."""
        shape: StaticShape = static(node.out.shape)
        if not shape or shape[0] != 1:
            raise self.refusal(node, "its first axis goes")
        return constant(np.array((self.sequences, *shape[1:]), np.int64))

    def is_row_by_row(self, node: Node) -> bool:
        if node.op in ELEMENTWISE or node.op == "Cast":
            return True
        data, op = self.data(node), view(node)
        rank = len(data.shape)
        if node.op in ROWS:
            return op.axis(-1, rank) == rank - 1 > 0
        if node.op.startswith("Reduce"):
            return 0 not in reduced_axes(op)
        if node.op == "MatMul":
            return rank > 1 and not any(self.mapped[v] in self.rows for v in node.inputs[1:] if v is not None)
        if node.op == "Slice":
            taken = slice_spans(op)[0]
            return (taken.start, taken.count, taken.step) == (0, 1, 1)
        if node.op == "Transpose":
            return tuple(op.attr("perm", ()))[:1] == (0,)
        return node.op == "Concat" and op.axis(0, rank) != 0
