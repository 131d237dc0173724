"""AttributeProto -> Python: numbers, text, tuples of them, arrays; subgraphs stay protobuf for the converter."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx

from redline.base.errors import ModelError, UnsupportedError
from redline.frontend.tensors import to_array

Attributes = dict[str, Any]
_A = onnx.AttributeProto


def attributes(protos: Iterable[onnx.AttributeProto], folder: Path | None, where: str, bound: Mapping[str, Any]) -> Attributes:
    """The attributes by name. One that refers to a function's attribute takes its value from ``bound``, or is absent."""
    found: Attributes = {}
    for proto in protos:
        if proto.name in found:
            raise ModelError(where, f"attribute {proto.name!r} is given twice")
        if not proto.ref_attr_name:
            found[proto.name] = value(proto, folder, where)
        elif proto.ref_attr_name in bound:
            found[proto.name] = bound[proto.ref_attr_name]
    return found


def value(proto: onnx.AttributeProto, folder: Path | None, where: str) -> Any:
    """The attribute's value; raises UnsupportedError for kinds that no supported operator has."""
    match proto.type:
        case _A.FLOAT:
            return proto.f
        case _A.INT:
            return proto.i
        case _A.STRING:
            return _text(proto.s)
        case _A.TENSOR:
            return to_array(proto.t, folder, where)
        case _A.GRAPH:
            return proto.g
        case _A.FLOATS:
            return tuple(proto.floats)
        case _A.INTS:
            return tuple(proto.ints)
        case _A.STRINGS:
            return tuple(_text(s) for s in proto.strings)
    kind = _A.AttributeType.Name(proto.type)
    raise UnsupportedError(where, f"attribute {proto.name!r} of kind {kind} is not supported")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
