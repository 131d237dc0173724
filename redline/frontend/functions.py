"""Functions: those that the model brings along, and those by which the standard itself defines an operator."""

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
import onnx.defs
from onnx import helper

from redline.base.errors import ModelError
from redline.base.shapes import Sym
from redline.frontend.attributes import value
from redline.frontend.read import STANDARD_DOMAINS
from redline.ir import Value


class Functions:
    """The model's own functions by domain, name and overload."""

    def __init__(self, protos: Iterable[onnx.FunctionProto]) -> None:
        self._table: dict[tuple[str, str, str], onnx.FunctionProto] = {}
        for proto in protos:
            key = (proto.domain, proto.name, proto.overload)
            if key in self._table:
                raise ModelError("model", f"function {proto.domain}.{proto.name} is defined twice")
            self._table[key] = proto

    def find(self, node: onnx.NodeProto) -> onnx.FunctionProto | None:
        return self._table.get((node.domain, node.op_type, node.overload))


def standard_function(node: onnx.NodeProto, opset: int, inputs: Sequence[Value | None]) -> onnx.FunctionProto | None:
    """The standard's definition of the node's operator in terms of simpler ones; None where it has none."""
    if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, opset, ""):
        return None
    schema: Any = onnx.defs.get_schema(node.op_type, opset, "")
    if schema.has_function:
        return schema.function_body
    if not schema.has_context_dependent_function:
        return None
    types = [_type_proto(item).SerializeToString() for item in inputs]
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if not versions:
        return None
    body = schema.get_context_dependent_function_with_opset_version(max(versions), node.SerializeToString(), types)
    function = onnx.FunctionProto()
    function.ParseFromString(body)
    return function


def attribute_defaults(node: onnx.NodeProto, opset: int) -> dict[str, Any]:
    """The standard's defaults for the attributes of the node's operator."""
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    found = ((name, item.default_value) for name, item in schema.attributes.items())
    return {name: value(proto, None, name) for name, proto in found if proto.type != onnx.AttributeProto.UNDEFINED}


def _type_proto(item: Value | None) -> onnx.TypeProto:
    if item is None:
        return onnx.TypeProto()
    shape = [dim.name if isinstance(dim, Sym) else dim for dim in item.shape]
    return helper.make_tensor_type_proto(item.dtype.onnx, shape)
