"""ONNX nodes -> graph nodes: one walk in the model's order, functions and decided branches inlined on the way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from redline import ops
from redline.base.errors import ModelError, UnsupportedError
from redline.base.shapes import is_static
from redline.frontend import signature, subgraphs
from redline.frontend.attributes import Attributes, attributes
from redline.frontend.functions import Functions, attribute_defaults, standard_function
from redline.frontend.read import STANDARD_DOMAINS, opset_version
from redline.frontend.refused import REFUSED
from redline.frontend.scope import Scope
from redline.frontend.site import Call, Site
from redline.frontend.tensors import to_array
from redline.frontend.unsupported import Unsupported
from redline.frontend.upgrade import upgrade
from redline.ir import Value, constant

MAX_DEPTH = 32
MAX_NODES = 250_000
_KNOWN_OF_MICROSOFT = (
    "Gelu", "QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearLeakyRelu", "QLinearSigmoid",
    "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearSoftmax", "QLinearConcat", "QGemm", "MatMulNBits",
)  # fmt: skip
_SAME_AS_STANDARD = frozenset({("com.microsoft", op) for op in _KNOWN_OF_MICROSOFT})


@dataclass(frozen=True)
class Frame:
    """What the nodes of one graph or function body have in common."""

    scope: Scope
    opset: int
    prefix: str = ""
    bound: Mapping[str, Any] = field(default_factory=dict)  # the values of the function's attributes
    depth: int = 0


class Converter:
    """Walks a model. Nodes that cannot be built are collected in ``unsupported``, and what depends on them is skipped."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None, counts: Sequence[int] = ()) -> None:
        """``counts``: the extents to build for that only a run finds, in the order of the nodes; else the most they may be."""
        self.folder, self.counts = folder, counts
        self.num_found = 0
        self.functions = Functions(model.functions)
        self.unsupported: list[Unsupported] = []
        self._num_nodes = 0

    def initializers(self, graph: onnx.GraphProto, scope: Scope) -> None:
        """Defines the graph's initializers as constants."""
        if graph.sparse_initializer:
            seen = "the model holds sparse initializers"
            raise UnsupportedError(graph.name or "model", seen, "allowed: dense ones", "export it with dense weights")
        for tensor in graph.initializer:
            where = tensor.name or "initializer"
            try:
                value = constant(to_array(tensor, self.folder, where), tensor.name)
            except UnsupportedError as error:
                self._report(where, "Initializer", "", error)
                scope.define(tensor.name, None, where)
            else:
                scope.define(tensor.name, value, where)

    def body(self, nodes: Iterable[onnx.NodeProto], frame: Frame) -> None:
        """Defines the outputs of ``nodes`` in the frame's scope."""
        for index, node in enumerate(nodes):
            self._num_nodes += 1
            if self._num_nodes > MAX_NODES:
                raise ModelError("model", f"more than {MAX_NODES} nodes once functions are inlined and loops written out")
            label = frame.prefix + (node.name or f"{node.op_type}_{index}")
            outputs = self._outputs(node)
            values = self._try_node(node, frame, label, len(outputs))
            for name, value in zip(outputs, values, strict=True):
                if name:
                    frame.scope.define(name, value, label)

    @staticmethod
    def _outputs(node: onnx.NodeProto) -> list[str]:
        names = list(node.output)
        while names and not names[-1]:
            names.pop()
        return names

    def _try_node(self, node: onnx.NodeProto, frame: Frame, label: str, num_outputs: int) -> Sequence[Value | None]:
        inputs = [frame.scope.find(name, label) if name else None for name in node.input]
        is_lost = any(name and value is None for name, value in zip(node.input, inputs, strict=True))
        try:
            values = self._node(node, None if is_lost else tuple(inputs), frame, label, num_outputs)
        except UnsupportedError as error:
            self._report(label, node.op_type, node.domain, error)
            return [None] * num_outputs
        if len(values) < num_outputs:
            raise ModelError(label, f"{node.op_type} with {num_outputs} outputs", f"it has {len(values)}")
        return values[:num_outputs]

    def _report(self, label: str, op: str, domain: str, error: UnsupportedError) -> None:
        reason = "; ".join(part for part in (error.seen, error.allowed) if part)
        self.unsupported.append(Unsupported(label, op, domain, reason, error.remedy))

    def _node(
        self, node: onnx.NodeProto, inputs: tuple[Value | None, ...] | None, frame: Frame, label: str, num_outputs: int
    ) -> Sequence[Value | None]:
        """The node's outputs; those of a node with lost inputs (None) are lost, but its operator is still looked at."""
        function = self.functions.find(node)
        if function is None:
            _check_operator(node, label)
        if inputs is None:
            return [None] * num_outputs
        attrs = attributes(node.attribute, self.folder, label, frame.bound)
        if function is not None:
            return self._inline(function, inputs, attrs, node.output, frame, label)
        if node.op_type == "Constant":
            return (_constant(attrs, label),)
        if node.op_type == "Identity" and all(v is not None for v in inputs):
            return inputs
        call = Call(node.op_type, inputs, attrs, num_outputs, frame.opset)
        if node.op_type in ("If", "Loop", "Scan"):
            return self._subgraphs(call, frame, label)
        return self._operator(call, node, frame, label)

    def _operator(self, call: Call, node: onnx.NodeProto, frame: Frame, label: str) -> Sequence[Value | None]:
        _refuse_subgraphs(call.attrs, label)
        if node.domain in STANDARD_DOMAINS:
            signature.check(call, label)
        site = Site(label)
        with site.guard(call):
            settled = upgrade(call, site)
        if isinstance(settled, tuple):
            return settled
        if settled.op in ops.known():
            with site.guard(settled):
                settled = self._with_count(settled, label)
            return site.apply(settled)
        function = standard_function(node, frame.opset, call.inputs)
        if function is None:
            ops.lookup(settled.op, label)
            raise UnsupportedError(label, f"operator {settled.op} is not supported")
        attrs = attribute_defaults(node, frame.opset) | dict(call.attrs)
        return self._inline(function, call.inputs, attrs, node.output, frame, label)

    def _with_count(self, call: Call, label: str) -> Call:
        """``call``, told the extent to build for where it is one that only a run finds."""
        bound = ops.lookup(call.op, label).bound
        if bound is None or not all(is_static(value.shape) for value in call.inputs if value is not None):
            return call
        most = bound(ops.Op(call.op, call.inputs, call.attrs, label, call.num_outputs))
        if most is None:
            return call
        slot, self.num_found = self.num_found, self.num_found + 1
        count = self.counts[slot] if slot < len(self.counts) else most
        return replace(call, attrs={**call.attrs, "slot": slot, "count": count, "most": most})

    def _inline(
        self, function: onnx.FunctionProto, inputs: tuple[Value | None, ...], attrs: Attributes, outputs: Sequence[str],
        frame: Frame, label: str,
    ) -> list[Value | None]:  # fmt: skip
        """The body of ``function`` in a scope of its own, its attributes bound to the call's or to their defaults."""
        defaults = attributes(function.attribute_proto, self.folder, label, {})
        scope = Scope()
        opset = opset_version(function.opset_import, label) if function.opset_import else frame.opset
        inner = self._deeper(Frame(scope, opset, f"{label}/", defaults | attrs, frame.depth), label)
        if len(inputs) > len(function.input):
            raise ModelError(label, f"{len(inputs)} inputs", f"function {function.name} takes {len(function.input)}")
        absent = set(function.input[len(inputs) :])
        for name, value in zip(function.input, inputs, strict=False):
            if value is None:
                absent.add(name)
            else:
                scope.define(name, value, label)
        self.body((_drop_inputs(node, absent) for node in function.node), inner)
        if len(outputs) > len(function.output):
            raise ModelError(label, f"{len(outputs)} outputs", f"function {function.name} has {len(function.output)}")
        return [scope.find(name, label) if used else None for name, used in zip(function.output, outputs, strict=False)]

    def _subgraphs(self, call: Call, frame: Frame, label: str) -> list[Value | None]:
        """The outputs of an If, Loop or Scan, whose bodies see the names around them."""

        def body(graph: onnx.GraphProto, inputs: Sequence[Value], prefix: str) -> list[Value | None]:
            scope = Scope(frame.scope)
            self.initializers(graph, scope)
            if len(graph.input) != len(inputs):
                raise ModelError(label, f"a body of {len(graph.input)} inputs", f"{call.op} gives it {len(inputs)}")
            for item, value in zip(graph.input, inputs, strict=True):
                scope.define(item.name, value, label)
            inner = Frame(scope, frame.opset, f"{label}/{prefix}", frame.bound, frame.depth)
            self.body(graph.node, self._deeper(inner, label))
            return [scope.find(item.name, label) for item in graph.output]

        return subgraphs.convert(call, Site(label), body)

    @staticmethod
    def _deeper(frame: Frame, label: str) -> Frame:
        if frame.depth >= MAX_DEPTH:
            raise ModelError(label, f"functions or branches nested more than {MAX_DEPTH} deep")
        return Frame(frame.scope, frame.opset, frame.prefix, frame.bound, frame.depth + 1)


def _drop_inputs(node: onnx.NodeProto, absent: set[str]) -> onnx.NodeProto:
    """``node`` with the inputs that its function was called without left empty."""
    if absent.isdisjoint(node.input):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.ClearField("input")
    copy.input.extend("" if name in absent else name for name in node.input)
    return copy


def _check_operator(node: onnx.NodeProto, label: str) -> None:
    """Raises UnsupportedError for an operator that could not be built whatever its inputs are."""
    if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in _SAME_AS_STANDARD:
        remedy = "export with standard operators, or give the model a local function of this name"
        raise UnsupportedError(label, f"operators of the domain {node.domain!r} are not supported", "", remedy)
    if node.op_type in REFUSED:
        reason, remedy = REFUSED[node.op_type]
        raise UnsupportedError(label, f"{node.op_type} is refused: {reason}", "", remedy)


def _refuse_subgraphs(attrs: Mapping[str, Any], label: str) -> None:
    for name, value in attrs.items():
        if isinstance(value, onnx.GraphProto):
            raise UnsupportedError(label, f"attribute {name!r} is a graph", "allowed: the bodies of If, Loop and Scan")


def _constant(attrs: Attributes, label: str) -> Value:
    """The value of a Constant node: a tensor, a number, or a list of numbers."""
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if len(attrs) == 1:
        ((name, value),) = attrs.items()
        if name == "value" and isinstance(value, np.ndarray):
            return constant(value, label)
        if name in kinds:
            return constant(np.array(value, kinds[name]), label)
    seen = f"a Constant with {', '.join(sorted(attrs)) or 'no value'}"
    raise UnsupportedError(label, seen, f"allowed: value, {', '.join(kinds)}, exactly one")
