"""The table of graph operators, and the three things one does with a node: type it, evaluate it, take it apart.

Operators carry the names and the newest semantics of the ONNX standard; the front end settles older opsets. What must
be known at build time (axes, shapes, ...) is listed in ``OpDef.static`` and read with ``Op.const``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError, UnsupportedError, closest
from redline.base.shapes import StaticShape
from redline.ir import CONSTANT, Node, TensorType, Value

Infer = Callable[["Op"], Sequence[TensorType]]
Reference = Callable[..., Any]
Decompose = Callable[["Op"], Value | tuple[Value, ...] | None]
Bound = Callable[["Op"], int | None]


class Op:
    """A node being typed or taken apart: its inputs and attributes under short names."""

    def __init__(
        self, name: str, inputs: Sequence[Value | None], attrs: Mapping[str, Any], label: str = "", num_outputs: int = 1
    ) -> None:
        self.name, self.inputs, self.attrs, self.label = name, tuple(inputs), attrs, label or name
        self.num_outputs = num_outputs

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None

    def value(self, i: int) -> Value:
        """Input ``i``; raises ModelError when it is absent."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise ModelError(self.label, f"{self.name} lacks input {i}")
        return value

    def type(self, i: int) -> TensorType:
        return self.value(i).type

    def shape(self, i: int) -> StaticShape:
        """The static shape of input ``i``."""
        return shapes.static(self.type(i).shape, self.label)

    def const(self, i: int) -> np.ndarray:
        """The value of input ``i``; raises UnsupportedError when it is only known at run time."""
        array = self.value(i).array
        if array is None:
            raise UnsupportedError(
                self.label, f"input {i} of {self.name} is computed at run time", "it must be known at build time",
                "make it a constant of the model, or bind it with --freeze NAME=FILE.npy",
            )  # fmt: skip
        return array

    def ints(self, i: int) -> tuple[int, ...]:
        return tuple(int(x) for x in self.const(i).reshape(-1))

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attrs.get(name, default)

    def is_const(self, i: int) -> bool:
        return self.value(i).array is not None

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        return shapes.axis_index(int(self.attr(name, default)), rank, self.label)


@dataclass(frozen=True)
class OpDef:
    """``infer`` types the outputs; ``reference`` computes them with numpy: reference(op, *arrays) -> array or tuple.

    ``decompose`` writes the node in terms of simpler ones (None: leave it whole). ``static`` are the inputs that must be
    build-time constants. ``elementwise``: an output element depends on the input elements at its own (broadcast) coordinates.
    ``bound``: the most that the extent of its result may be which only a run finds out; None: the types say all. The front end
    gives such a node the attributes ``count``, the extent to build for, ``slot``, which of the model's it is, and ``most``;
    its ``static`` inputs need not be constants then.
    """

    name: str
    infer: Infer
    reference: Reference
    decompose: Decompose | None = None
    static: frozenset[int] = frozenset()
    elementwise: bool = False
    bound: Bound | None = None


_TABLE: dict[str, OpDef] = {}


def define(
    name: str, infer: Infer, reference: Reference, decompose: Decompose | None = None, static: Sequence[int] = (), *,
    elementwise: bool = False, bound: Bound | None = None,
) -> OpDef:  # fmt: skip
    """Adds an operator to the table; called once a name, while ``redline.ops`` is imported."""
    assert name not in _TABLE, f"{name} is defined twice"
    _TABLE[name] = OpDef(name, infer, reference, decompose, frozenset(static), elementwise, bound)
    return _TABLE[name]


def known() -> Mapping[str, OpDef]:
    return MappingProxyType(_TABLE)


def lookup(name: str, where: str = "") -> OpDef:
    if name not in _TABLE:
        raise UnsupportedError(where or name, f"operator {name} is not supported", closest(name, _TABLE))
    return _TABLE[name]


def view(node: Node) -> Op:
    return Op(node.op, node.inputs, node.attrs, node.name or node.op, len(node.types))


def infer(node: Node) -> tuple[TensorType, ...]:
    """The types that the operator's rule gives ``node``'s outputs, as many as the node has."""
    return tuple(lookup(node.op, node.name).infer(view(node)))[: len(node.types)]


def make_node(
    op: str, inputs: Sequence[Value | None], attrs: Mapping[str, Any] | None = None, *,
    num_outputs: int | None = None, name: str = "", origin: tuple[str, ...] = (),
) -> Node:  # fmt: skip
    """A typed node. Raises UnsupportedError or ModelError when the operator is unknown or does not fit its inputs."""
    frozen = MappingProxyType(dict(attrs or {}))
    types = tuple(lookup(op, name).infer(Op(op, inputs, frozen, name)))
    return Node(op, tuple(inputs), types[:num_outputs], frozen, name, origin)


def make(op: str, *inputs: Value | None, **attrs: Any) -> Value:
    """The first output of a new node: ``make("Softmax", x, axis=-1)``."""
    return make_node(op, inputs, attrs).out


def evaluate(node: Node, arrays: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    """The outputs of ``node`` by the numpy reference, typed as the node says."""
    if node.op == CONSTANT:
        return (node.attrs["value"],)
    with np.errstate(all="ignore"):
        result = lookup(node.op, node.name).reference(view(node), *arrays)
        outputs = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(array, dtype=kind.dtype.numpy) for array, kind in zip(outputs, node.types, strict=False))
