"""ModelInferRequest to InferRequest, and InferResponse to ModelInferResponse."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from redline.base import shapes
from redline.server import proto, tensors
from redline.server.errors import invalid
from redline.server.memory import Regions
from redline.server.types import BYTES, NUMPY, InferRequest, InferResponse, Region, Tensor, Wanted

# The field of InferTensorContents that holds each data type; FP16 and BF16 travel as raw bytes only.
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", BYTES: "bytes_contents",
}  # fmt: skip
SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")


def decode(message: Any, regions: Regions) -> InferRequest:
    """The request in a ModelInferRequest; raises ServeError naming the field at fault."""
    parameters = plain_parameters(message.parameters)
    for key in SEQUENCE:
        if parameters.pop(key, None) not in (None, 0, False, ""):
            raise invalid("infer", f"the request has {key}", "sequences are not served")
    wanted = tuple([_wanted(output) for output in message.outputs]) if message.outputs else ()
    raw = list(message.raw_input_contents)
    inputs, pieces = [], []
    for each in message.inputs:
        tensor, piece = _input(each, raw, regions)
        inputs.append(tensor)
        if piece is not None:
            pieces.append(piece)
    if raw:
        raise invalid("infer", f"{len(raw)} raw_input_contents belong to no input", "one for each input without shared memory")
    outputs = [w.region for w in wanted if w.region]
    if outputs:
        regions.check_apart(outputs, pieces)
        for region in outputs:
            regions.check(region)
    return InferRequest(
        message.model_name, message.model_version, tuple(inputs), wanted, message.id,
        _whole(parameters, "priority"), _whole(parameters, "timeout"), parameters,
    )  # fmt: skip


def plain_parameters(fields: Any) -> dict[str, Any]:
    """A map of InferParameter as plain values."""
    if not fields:
        return {}
    values = {}
    for key, parameter in fields.items():
        kind = parameter.WhichOneof("parameter_choice")
        values[key] = getattr(parameter, kind) if kind else None
    return values


def _whole(parameters: dict[str, Any], key: str) -> int:
    value = parameters.pop(key, 0)
    if type(value) is not int or value < 0:
        raise invalid("request parameters", f"{key} is {str(value)[:40]}", "expected a whole number from 0 on")
    return value


def _input(message: Any, raw: list[bytes], regions: Regions) -> tuple[Tensor, Region | None]:
    """A tensor, from shared memory, from the first of the raw contents (which is taken off), or from typed contents."""
    where = f"input {message.name[:80]!r}"
    if not message.name:
        raise invalid("infer", "an input has no name")
    datatype = tensors.check_datatype(where, message.datatype)
    shape = tensors.check_shape(where, tuple(message.shape))
    region = _region(plain_parameters(message.parameters), where)
    if region is not None:
        return Tensor(message.name, datatype, tensors.from_bytes(where, datatype, shape, regions.read(region))), region
    if message.HasField("contents"):
        return Tensor(message.name, datatype, _typed(where, datatype, shape, message.contents)), None
    if not raw:
        raise invalid(where, "it has no data", "give raw_input_contents, contents or shared_memory_region")
    return Tensor(message.name, datatype, tensors.from_bytes(where, datatype, shape, raw.pop(0))), None


def _typed(where: str, datatype: str, shape: tuple[int, ...], contents: Any) -> np.ndarray:
    field = CONTENTS.get(datatype)
    if field is None:
        raise invalid(where, f"{datatype} has no typed contents", "", "send it in raw_input_contents")
    filled = [f.name for f, _ in contents.ListFields() if f.name != field]
    if filled:
        raise invalid(where, f"{filled[0]} is filled", f"{datatype} goes into {field}")
    values = getattr(contents, field)
    if len(values) != math.prod(shape):
        raise invalid(where, f"{len(values)} elements were given", f"the shape {shapes.text(shape)} has {math.prod(shape)}")
    if datatype == BYTES:
        return tensors.object_array(list(values), shape)
    limits = tensors.INTEGER_LIMITS.get(datatype)
    if limits and values and (min(values) < limits.min or max(values) > limits.max):
        raise invalid(where, "an element is out of range", f"{datatype} is {limits.min}..{limits.max}")
    return np.array(values, NUMPY[datatype]).reshape(shape)


def _region(parameters: Mapping[str, Any], where: str) -> Region | None:
    if "shared_memory_region" not in parameters:
        return None
    name = parameters["shared_memory_region"]
    size, offset = parameters.get("shared_memory_byte_size"), parameters.get("shared_memory_offset", 0)
    if not isinstance(name, str) or type(size) is not int or type(offset) is not int:
        raise invalid(f"{where} parameters", "those of shared memory are incomplete or of the wrong type")
    return Region(name, offset, size)


def _wanted(message: Any) -> Wanted:
    where = f"output {message.name[:80]!r}"
    if not message.name:
        raise invalid("infer", "an output has no name")
    parameters = plain_parameters(message.parameters)
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise invalid(f"{where} parameters", f"classification is {str(classes)[:40]}", "expected a whole number from 0 on")
    region = _region(parameters, where)
    if classes and region:
        raise invalid(where, "classification goes with no shared memory", "ask for one of them")
    return Wanted(message.name, classes, True, region)


def encode(response: InferResponse, wanted: tuple[Wanted, ...], regions: Regions) -> Any:
    """A ModelInferResponse; outputs in shared memory are written there."""
    message = proto.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for index, tensor in enumerate(response.outputs):
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        data = tensors.to_bytes(tensor.array, tensor.datatype)
        region = wanted[index].region if wanted else None
        if region is None:
            message.raw_output_contents.append(bytes(data))
            continue
        regions.write(region, data)
        output.parameters["shared_memory_region"].string_param = region.name
        output.parameters["shared_memory_byte_size"].int64_param = len(data)
        if region.offset:
            output.parameters["shared_memory_offset"].int64_param = region.offset
    return message
