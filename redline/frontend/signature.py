"""Whether a call fits the standard's signature of its operator: how many inputs, of which types, which of them alike.

Only what the rules behind it rely on is held: any float may come where one is allowed, any integer likewise, and what a
newer version of the operator allows is allowed in every version.
"""

from collections.abc import Sequence
from functools import cache

import onnx

from redline.base.errors import ModelError
from redline.frontend.site import Call
from redline.ir import Value


@cache
def _schemas(op: str, opset: int) -> tuple[onnx.defs.OpSchema, ...]:
    """The operator as of ``opset`` and as of today; empty where the standard has no such operator."""
    try:
        return onnx.defs.get_schema(op, opset, ""), onnx.defs.get_schema(op, "")
    except onnx.defs.SchemaError:
        return ()


def check(call: Call, label: str) -> None:
    """Raises ModelError for a call that no version of the operator takes."""
    schemas = _schemas(call.op, call.opset)
    if not schemas:
        return
    most = max(schema.max_input for schema in schemas)
    if len(call.inputs) > most:
        raise ModelError(label, f"{call.op} with {len(call.inputs)} inputs", f"it takes at most {most}")
    _check_types(call.op, call.inputs, schemas, label)


def _check_types(op: str, inputs: Sequence[Value | None], schemas: Sequence[onnx.defs.OpSchema], label: str) -> None:
    first: dict[str, tuple[int, Value]] = {}
    for i, value in enumerate(inputs):
        if value is None:
            continue
        formals = [schema.inputs[min(i, len(schema.inputs) - 1)] for schema in schemas if schema.inputs]
        allowed = {name[7:-1] for formal in formals for name in formal.types if name.startswith("tensor(")}
        if allowed and not any(_kind(name) == value.dtype.kind.replace("u", "i") for name in allowed):
            raise ModelError(label, f"input {i} of {op} is {value.dtype}", f"allowed: {', '.join(sorted(allowed))}")
        formal = formals[0]
        if formal.is_homogeneous and "(" not in formal.type_str:
            j, other = first.setdefault(formal.type_str, (i, value))
            if other.dtype != value.dtype:
                seen = f"inputs {j} and {i} of {op} are {other.dtype} and {value.dtype}"
                raise ModelError(label, seen, "they must have one type", "put a Cast before one of them")


def _kind(name: str) -> str:
    """The kind of the standard's type of that name: floating, integer, truth value or another."""
    if "float" in name or name == "double":
        return "f"
    return "i" if "int" in name else name[0]
