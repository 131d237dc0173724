"""The graph: immutable nodes that point at their inputs.

A graph is its outputs: everything reachable from them is in it, nothing else is. Changing a graph means building new
nodes and sharing the old ones that did not change (see rewrite.py). Two kinds of leaf exist, INPUT and CONSTANT; every
other operator name is opaque here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.shapes import Shape, text

INPUT = "Input"
CONSTANT = "Constant"
Attrs = Mapping[str, Any]


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a tensor."""

    dtype: DType
    shape: Shape

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{text(self.shape)}]"


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. ``types`` are those of its outputs; ``origin`` names the ONNX nodes it stands for."""

    op: str
    inputs: tuple["Value | None", ...]  # None: an optional input that is absent
    types: tuple[TensorType, ...]
    attrs: Attrs = field(default_factory=lambda: MappingProxyType({}))
    name: str = ""
    origin: tuple[str, ...] = ()

    @property
    def out(self) -> "Value":
        """The first output."""
        return Value(self, 0)

    def outputs(self) -> tuple["Value", ...]:
        return tuple(Value(self, i) for i in range(len(self.types)))

    def with_inputs(self, inputs: tuple["Value | None", ...]) -> "Node":
        """The same operation on other inputs of the same types; itself when nothing changes."""
        return self if inputs == self.inputs else replace(self, inputs=inputs)

    def __repr__(self) -> str:
        return f"{self.op}({self.name})"


@dataclass(frozen=True)
class Value:
    """One output of a node. Equal when it is the same output of the same node."""

    node: Node
    index: int = 0

    @property
    def type(self) -> TensorType:
        return self.node.types[self.index]

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def op(self) -> str:
        return self.node.op

    @property
    def array(self) -> np.ndarray | None:
        """The value of a constant; None for everything else."""
        return self.node.attrs["value"] if self.node.op == CONSTANT else None

    def __repr__(self) -> str:
        return f"{self.node!r}:{self.index}"


def input_node(name: str, type: TensorType) -> Node:
    return Node(INPUT, (), (type,), name=name)


def constant(array: np.ndarray, name: str = "") -> Value:
    """A leaf holding a read-only view of ``array``."""
    array = np.asarray(array).view()
    array.setflags(write=False)
    kind = TensorType(dtypes.from_numpy(array.dtype), array.shape)
    return Node(CONSTANT, (), (kind,), MappingProxyType({"value": array}), name).out


@dataclass(frozen=True)
class Graph:
    """Named inputs and outputs. ``inputs`` keeps the ones that nothing reads, so the signature stays the model's own."""

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[tuple[str, Value], ...]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every reachable node, inputs of a node before the node (iterative: a deep graph never overflows the stack)."""
        order: dict[Node, None] = {}
        stack = [(value.node, False) for _, value in reversed(self.outputs)]
        while stack:
            node, expanded = stack.pop()
            if node in order:
                continue
            if expanded:
                order[node] = None
                continue
            stack.append((node, True))
            stack += [(v.node, False) for v in reversed(node.inputs) if v is not None and v.node not in order]
        return tuple(order)

    @property
    def operations(self) -> Iterator[Node]:
        """The nodes that do something: neither inputs nor constants."""
        return (node for node in self.nodes if node.op not in (INPUT, CONSTANT))

    @cached_property
    def readers(self) -> Mapping[Value, Sequence[Node]]:
        """The nodes that read each value, each once, in their order; values that no node reads are left out."""
        found: dict[Value, list[Node]] = {}
        for node in self.operations:
            for value in dict.fromkeys(v for v in node.inputs if v is not None):
                found.setdefault(value, []).append(node)
        return found

    @cached_property
    def uses(self) -> Mapping[Value, int]:
        """How often each value is read, a graph output counting as a read."""
        count: dict[Value, int] = {}
        for value in [v for node in self.nodes for v in node.inputs if v is not None] + [v for _, v in self.outputs]:
            count[value] = count.get(value, 0) + 1
        return count

    def __str__(self) -> str:
        names = {node: f"%{i}" for i, node in enumerate(self.nodes)}
        ref = lambda v: "-" if v is None else names[v.node] + (f".{v.index}" if len(v.node.types) > 1 else "")  # noqa: E731
        lines = [f"graph {self.name}"]
        for node in self.nodes:
            shown = {k: v for k, v in node.attrs.items() if k != "value"}
            attrs = "".join(f" {k}={v!r}" for k, v in sorted(shown.items()))
            types = ", ".join(map(repr, node.types))
            lines.append(f"  {names[node]} = {node.op}({', '.join(map(ref, node.inputs))}){attrs} : {types}  # {node.name}")
        return "\n".join([*lines, *(f"  return {name} = {ref(value)}" for name, value in self.outputs)])
