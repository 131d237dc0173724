"""The walk that turns a graph into a program: every value becomes a view of memory or an expression.

With a ``storage`` type (bfloat16, float16) float32 values are held and multiplied in it and computed with in float32: what
stays float32 is the inside of every kernel, the engine's inputs and outputs, and small tensors. ``attended`` is such a type
for attention alone: for its queries, keys and values, and what holds nothing else.

In: a graph of static shapes in the vocabulary of anchors and expressions. Out: a Program. What belongs together is
decided in fusion.py, where results are written in placement.py; the anchors' problems are made in anchors/.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import UnsupportedError
from redline.base.shapes import StaticShape, size, static
from redline.ir import CONSTANT, INPUT, Graph, Node, Value
from redline.kernels import nest
from redline.kernels.expr import Expr, Load, cast, coordinates, integer, lit
from redline.kernels.problem import Operand, Problem
from redline.lower import elementwise, fusion, indexing, views
from redline.lower.editing import still_used
from redline.lower.placement import Placement
from redline.lower.program import Buffer, BufferKind, Program, Step, View
from redline.ops import registry

Anchor = Callable[["Lowering", fusion.Chain], None]
NOTHING: Mapping[Value, Expr] = MappingProxyType({})


class Reads:
    """The read operands of a kernel under construction: the family's own, then what its expressions load, each view once.

    An expression that loads one of the family's own operands reads it as one more: those may be packed.
    """

    def __init__(self, first: Sequence[View] = ()) -> None:
        self.views: list[View] = list(first)
        self._first = len(self.views)

    def load(self, view: View, at: Sequence[Expr]) -> Expr:
        if view not in self.views[self._first :]:
            self.views.append(view)
        index = tuple(integer(0) if e == 1 else i for e, i in zip(view.shape, at, strict=True))
        return Load(view.dtype, self.views.index(view, self._first), index)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return tuple(view.operand for view in self.views)


class Lowering:
    """The state of one walk. Anchors use ``memory``, ``element``, ``epilogue``, ``result`` and ``emit``."""

    def __init__(
        self, graph: Graph, anchors: Mapping[str, Anchor], storage: DType | None = None, attended: DType | None = None,
        is_open: bool = False, large: Collection[int] | None = None, wide_taps: bool = False,
    ) -> None:  # fmt: skip
        self.graph, self.anchors, self.storage, self.attended = graph, anchors, storage, attended or storage
        self.is_open, self.wide_taps = is_open, wide_taps
        self.large = None if large is None else {n for i, n in enumerate(graph.operations) if i in large}
        self.consumers = fusion.Consumers(graph)
        self.policy = fusion.Policy(self.consumers)
        self.chains = fusion.chains(graph, self.consumers, anchors)
        self.buffers: list[Buffer] = []
        self.constants: dict[int, np.ndarray] = {}
        self.views: dict[Value, View] = {}  # where the values that are in memory lie
        self.narrowed: dict[Value, View] = {}  # where values lie once more, in the type of the storage
        self.steps: list[Step] = []
        self.inputs = tuple((n.name, self._leaf(n), static(n.types[0].shape, n.name)) for n in graph.inputs)
        outputs = {name: self._output(name, value) for name, value in graph.outputs}
        self.outputs = tuple((name, view.buffer, view.shape) for name, view in outputs.items())
        self.homes = Placement(graph, self.consumers, self.allocate_for).assign(outputs)

    def run(self) -> Program:
        for node in self.graph.operations:
            if node in self.chains:
                if node is self.chains[node].last:
                    self.anchors[self.chains[node].anchor.op](self, self.chains[node])
            else:
                self._lower_expression(node)
        for (name, value), (_, buffer, shape) in zip(self.graph.outputs, self.outputs, strict=True):
            self._ensure_at(value, View.whole(buffer, shape), f"is the output {name}")
        kept, constants = still_used(self.buffers, self.constants, self.steps)
        return Program(self.graph.name, kept, constants, tuple(self.steps), self.inputs, self.outputs)

    # -- memory

    def _buffer(self, kind: BufferKind, dtype: DType, num_elements: int, name: str = "") -> Buffer:
        self.buffers.append(Buffer(len(self.buffers), kind, dtype, num_elements, name))
        return self.buffers[-1]

    def allocate(self, dtype: DType, shape: StaticShape) -> View:
        """A new temporary, contiguous."""
        return View.whole(self._buffer("temp", dtype, size(shape)), shape)

    def allocate_for(self, value: Value) -> View:
        """A new temporary that can hold ``value``, in the type of the storage where that is narrower."""
        narrow = None
        if value.dtype == dtypes.float32 and self.storage is not None and self._may_be_narrow(value):
            narrow = self.storage
        elif value.dtype == dtypes.float32 and self.attended is not None and not self.is_open:
            narrow = self.attended if fusion.is_only_attended(value, self.consumers) else None
        return self.allocate(narrow or value.dtype, static(value.shape, value.node.name))

    def _may_be_narrow(self, value: Value) -> bool:
        if self.is_open:
            return fusion.is_only_multiplied(value, self.consumers)
        return fusion.may_be_narrow(value, self.consumers, self.large)

    def constant(self, array: np.ndarray) -> View:
        """A view of a constant of the program."""
        array = np.ascontiguousarray(array)
        buffer = self._buffer("constant", dtypes.from_numpy(array.dtype), array.size)
        self.constants[buffer.index] = array
        return View.whole(buffer, array.shape)

    def _leaf(self, node: Node) -> Buffer:
        shape = static(node.types[0].shape, node.name)
        buffer = self._buffer("input", node.types[0].dtype, size(shape), node.name)
        self.views[node.out] = View.whole(buffer, shape)
        return buffer

    def _output(self, name: str, value: Value) -> View:
        shape = static(value.shape, name)
        return View.whole(self._buffer("output", value.dtype, size(shape), name), shape)

    def result(self, value: Value) -> View:
        """Where the kernel that computes ``value`` writes it."""
        if value not in self.views:
            self.views[value] = self.result_view(value)
        return self.views[value]

    def memory(self, value: Value) -> View:
        """A view of ``value``, which is written to memory now if it is not there yet."""
        if value not in self.views and value.op == CONSTANT:
            self.views[value] = self.constant(value.node.attrs["value"])
        if value not in self.views:
            self._store(value, self.result_view(value), "its reader reads memory")
        return self.views[value]

    def operand(self, value: Value) -> View:
        """``memory`` for an operand of a product, in the type of the storage where there is one."""
        return self._in_type(value, self.storage)

    def attended_operand(self, value: Value) -> View:
        """``memory`` for a query, key or value of attention; as it is where lengths are open."""
        return self.memory(value) if self.is_open else self._in_type(value, self.attended)

    def _in_type(self, value: Value, wanted: DType | None) -> View:
        wanted = wanted if value.dtype == dtypes.float32 else None
        if wanted is None or (value.array is None and self.memory(value).dtype == wanted):
            return self.memory(value)
        if value not in self.narrowed:
            if value.array is not None:
                self.narrowed[value] = self.constant(value.array.astype(wanted.numpy))
            else:
                self.narrowed[value] = self.allocate(wanted, static(value.shape, value.node.name))
                self._store(value, self.narrowed[value], "products are computed in another type")
        return self.narrowed[value]

    # -- expressions

    def element(self, value: Value, at: Sequence[Expr], reads: Reads) -> Expr:
        """The element of ``value`` at coordinates ``at``: loaded from memory, or computed on the spot."""
        array = value.array
        if array is not None and array.size == 1:
            return lit(array.reshape(-1)[0].item(), value.dtype)
        if value in self.views or value.node.op in (CONSTANT, INPUT):
            return cast(reads.load(self.memory(value), at), value.dtype)
        return self._apply(value.node, tuple(at), reads)

    def broadcast_element(self, value: Value, at: Sequence[Expr], reads: Reads) -> Expr:
        """The element that numpy's broadcasting pairs with coordinates ``at`` of a larger tensor."""
        return self.element(value, broadcast_index(static(value.shape), at), reads)

    def _apply(self, node: Node, at: tuple[Expr, ...], reads: Reads, known: Mapping[Value, Expr] = NOTHING) -> Expr:
        """Node's element at ``at``; ``known`` has the elements there of some of its inputs."""
        op, dtype = registry.view(node), node.types[0].dtype

        def access(value: Value, index: Sequence[Expr]) -> Expr:
            return known[value] if value in known else self.element(value, index, reads)

        if elementwise.supported(node.op):
            args = [None if v is None else access(v, broadcast_index(static(v.shape), at)) for v in node.inputs]
            return elementwise.build(op, args, dtype)
        accessors = [lambda index, v=v: access(v, index) for v in node.inputs]
        return indexing.build(op, accessors, at, static(node.types[0].shape, node.name))

    def epilogue(self, chain: fusion.Chain, acc: Expr, reads: Reads, at: Sequence[Expr] = ()) -> Expr:
        """The expression of a chain's last value, ``acc`` being the element of the anchor's own result.

        ``at``: the coordinates of the result, where they are not the kernel's own.
        """
        at = tuple(at) or coordinates(len(chain.anchor.types[0].shape))
        known = {chain.anchor.out: cast(acc, chain.anchor.types[0].dtype)}
        for node in chain.epilogue:
            known[node.out] = self._apply(node, at, reads, known)
        value = chain.last.out
        return cast(known[value], self.result(value).dtype)

    # -- steps

    def emit(self, family: str, problem: Problem, reads: Sequence[View], writes: Sequence[View], chain: fusion.Chain) -> None:
        """Appends the step that computes ``chain``."""
        self._append(family, problem, reads, writes, (chain.anchor, *chain.epilogue), chain.reason)

    def _append(
        self, family: str, problem: Problem, reads: Sequence[View], writes: Sequence[View], nodes: Sequence[Node], reason: str
    ) -> None:
        if all(size(view.shape) == 0 for view in writes):
            return
        origin = dict.fromkeys(name for node in nodes for name in node.origin or (node.name or node.op,))
        self.steps.append(Step(family, problem, tuple(reads), tuple(writes), tuple(origin), reason))

    def _lower_expression(self, node: Node) -> None:
        if not fusion.is_expression(node):
            raise UnsupportedError(node.name or node.op, f"operator {node.op} has no kernel for {node.types}")
        value = node.out
        view = self._as_view(node)
        if view is not None:
            self.views[value] = view
        elif node.op == "Concat":
            self._lower_concat(node)
        elif reason := self.policy.reason_to_store(node):
            self._store(value, self.result_view(value), reason)

    def result_view(self, value: Value) -> View:
        return self.homes.get(value) or self.allocate_for(value)

    def _as_view(self, node: Node) -> View | None:
        """The result as a window on its operand's memory, for operators that only move data."""
        source = node.inputs[0] if node.inputs else None
        if source is None or node.op not in ("Identity", "Reshape", "Transpose", "Slice", "Expand"):
            return None
        if source not in self.views:
            return None
        return views.forward(registry.view(node), self.views[source], static(node.types[0].shape, node.name))

    def _lower_concat(self, node: Node) -> None:
        whole = self.result_view(node.out)
        op = registry.view(node)
        axis, start = op.axis(0, len(whole.shape)), 0
        for i, part in enumerate(node.inputs):
            assert part is not None, "the front end refuses a Concat with absent inputs"
            extent = op.shape(i)[axis]
            self._ensure_at(part, views.narrow(whole, axis, start, extent), "is a part of a Concat", node)
            start += extent
        self.views[node.out] = whole

    def _ensure_at(self, value: Value, view: View, reason: str, reader: Node | None = None) -> None:
        """Copies or computes ``value`` into ``view``, for ``reader``, unless it is there already."""
        there = self.views.get(value)
        if (there is not None and there.is_place_of(view)) or size(view.shape) == 0:
            return
        self._store(value, view, reason, reader)

    def _store(self, value: Value, view: View, reason: str, reader: Node | None = None) -> None:
        """One loop nest that computes every element of ``value`` into ``view``."""
        reads = Reads()
        body = cast(self.element(value, coordinates(len(view.shape)), reads), view.dtype)
        problem = nest.Problem(reads.operands, (view.operand,), (body,))
        nodes = self._inlined(value) or ([reader] if reader else [])  # a leaf is copied on behalf of who reads it
        self._append("nest", problem, reads.views, [view], nodes, reason)
        self.views.setdefault(value, view)

    def _inlined(self, value: Value) -> list[Node]:
        """The nodes that an expression for ``value`` computes."""
        nodes: dict[Node, None] = {}
        stack = [value]
        while stack:
            current = stack.pop()
            if (current is value or current not in self.views) and not fusion.is_leaf(current.node):
                nodes[current.node] = None
                stack += [v for v in current.node.inputs if v is not None]
        return list(reversed(nodes))


def broadcast_index(shape: StaticShape, at: Sequence[Expr]) -> tuple[Expr, ...]:
    """The coordinates in an operand of ``shape`` that numpy's broadcasting pairs with ``at``."""
    inner = at[len(at) - len(shape) :]
    return tuple(integer(0) if extent == 1 else index for extent, index in zip(shape, inner, strict=True))
