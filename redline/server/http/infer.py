"""The body of an inference request, JSON and then binary tensors, as an InferRequest.

Clients repeat the JSON part byte by byte while only the tensors change, so it is parsed into a Plan, which is kept and bound
to each body. A plan holds no tensor data: requests with tensors in their JSON are parsed every time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from redline.server import tensors
from redline.server.errors import invalid
from redline.server.http.head import Head
from redline.server.memory import Regions
from redline.server.signature import Signature
from redline.server.types import BYTES, NUMPY, InferRequest, Region, Shape, Tensor, Wanted

REMEMBERED = 256
REMEMBERED_BYTES = 8 << 10
MAX_INPUTS = 1024
RESERVED = ("binary_data_output", "priority", "timeout", "sequence_id", "sequence_start", "sequence_end")
MAX_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input's elements are: in the binary part, in shared memory, or (``data``) in the JSON itself."""

    name: str
    datatype: str
    shape: Shape
    offset: int = 0
    num_bytes: int = 0
    region: Region | None = None
    data: list[Any] | None = None


@dataclass(slots=True)
class Plan:
    """The JSON part of a request, checked. ``templates``: heads of answers by version and shapes."""

    model: str
    version: str
    id: str
    sources: tuple[Source, ...]
    wanted: tuple[Wanted, ...]
    binary_default: bool
    binary_bytes: int
    priority: int
    timeout_us: int
    parameters: Mapping[str, Any]
    signature: Signature
    single: tuple[str, str, np.dtype, Shape, int] | None = None
    templates: dict[Any, bytes] = field(default_factory=dict)

    def bind(self, binary: memoryview, regions: Regions) -> InferRequest:
        """The request whose binary part is ``binary``; copies nothing of it."""
        if len(binary) != self.binary_bytes:
            seen = f"{len(binary)} bytes follow the JSON"
            raise invalid("infer", seen, f"the inputs' binary_data_size add up to {self.binary_bytes}")
        if self.single is not None:
            name, datatype, dtype, shape, _ = self.single
            inputs: tuple[Tensor, ...] = (Tensor(name, datatype, np.frombuffer(binary, dtype).reshape(shape)),)
        else:
            inputs = tuple([self._tensor(source, binary, regions) for source in self.sources])
        return InferRequest(
            self.model, self.version, inputs, self.wanted, self.id, self.priority, self.timeout_us, self.parameters
        )  # fmt: skip

    @staticmethod
    def _tensor(source: Source, binary: memoryview, regions: Regions) -> Tensor:
        where = f"input {source.name[:80]!r}"
        if source.data is not None:
            array = tensors.from_json(where, source.datatype, source.shape, source.data)
        else:
            data = regions.read(source.region) if source.region else binary[source.offset : source.offset + source.num_bytes]
            array = tensors.from_bytes(where, source.datatype, source.shape, data)
        return Tensor(source.name, source.datatype, array)

    def regions_apart(self, regions: Regions) -> None:
        """Raises ServeError where the request's pieces of shared memory overlap."""
        outputs = [w.region for w in self.wanted if w.region]
        if outputs:
            regions.check_apart(outputs, [s.region for s in self.sources if s.region])
            for piece in outputs:
                regions.check(piece)


class Plans:
    """Parses JSON parts, and remembers those without tensor data."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Plan] = {}

    def __call__(self, head: Head, model: str, version: str, text: bytes) -> Plan:
        key = (head.path, text)
        plan = self._known.get(key)
        if plan is None:
            plan = parse(model, version, text)
            if len(text) <= REMEMBERED_BYTES and all(source.data is None for source in plan.sources):
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[key] = plan
        return plan


def split(head: Head, body: memoryview) -> tuple[bytes, memoryview]:
    """The JSON part and the binary part of a body."""
    size = head.json_bytes
    if size < 0:
        return bytes(body), body[len(body) :]
    if size > len(body):
        raise invalid("infer", f"Inference-Header-Content-Length is {size}", f"the body has {len(body)} bytes")
    return bytes(body[:size]), body[size:]


def parse(model: str, version: str, text: bytes) -> Plan:
    """The plan of a JSON part; raises ServeError naming the field at fault."""
    root = load_json(text, "infer")
    parameters = _parameters(root, "request")
    sources, end = _sources(root)
    wanted, binary_default = _outputs(root, parameters)
    identifier = root.get("id", "")
    if not isinstance(identifier, str):
        raise invalid("infer", "the id is no string", "give a string")
    for key in ("sequence_id", "sequence_start", "sequence_end"):
        if parameters.get(key) not in (None, 0, False, ""):
            raise invalid("infer", f"the request has {key}", "sequences are not served")
    plan = Plan(
        model, version, identifier, sources, wanted, binary_default, end,
        _whole(parameters, "priority"), _whole(parameters, "timeout"),
        {key: value for key, value in parameters.items() if key not in RESERVED},
        tuple((s.name, s.datatype, s.shape) for s in sources),
    )  # fmt: skip
    if len(sources) == 1 and sources[0].data is None and sources[0].region is None and sources[0].datatype != BYTES:
        s = sources[0]
        if s.num_bytes == tensors.num_bytes(s.datatype, s.shape):
            plan.single = (s.name, s.datatype, NUMPY[s.datatype], s.shape, s.num_bytes)
    return plan


def load_json(text: bytes | memoryview, where: str) -> dict[str, Any]:
    """A JSON object; raises ServeError for anything else."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise invalid(where, f"the JSON is malformed: {error}") from error
    if not isinstance(value, dict):
        raise invalid(where, f"the JSON is {type(value).__name__}", "expected an object")
    return value


def _parameters(owner: Mapping[str, Any], where: str) -> dict[str, Any]:
    parameters = owner.get("parameters", {})
    if not isinstance(parameters, dict):
        raise invalid(f"{where} parameters", "they are no object", "expected an object of strings, numbers and booleans")
    for key, value in parameters.items():
        if not isinstance(value, str | int | float):
            allowed = "expected a string, a number or a boolean"
            raise invalid(f"{where} parameters", f"{key[:80]!r} is {type(value).__name__}", allowed)
    return parameters


def _whole(parameters: Mapping[str, Any], key: str, where: str = "request", default: int = 0) -> int:
    value = parameters.get(key, default)
    if type(value) is not int or not 0 <= value <= MAX_U64:
        raise invalid(f"{where} parameters", f"{key} is {str(value)[:40]}", "expected a whole number from 0 on")
    return value


def _named(owner: Any, kind: str) -> str:
    name = owner.get("name") if isinstance(owner, dict) else None
    if not isinstance(name, str) or not name:
        raise invalid("infer", f"an {kind} has no name", "expected an object with a name")
    return name


def _sources(root: Mapping[str, Any]) -> tuple[tuple[Source, ...], int]:
    """The inputs, and the number of bytes of the binary part."""
    inputs = root.get("inputs")
    if not isinstance(inputs, list) or not 0 < len(inputs) <= MAX_INPUTS:
        raise invalid("infer", "there is no list of inputs", f"expected 'inputs', a list of 1 to {MAX_INPUTS}")
    sources, end = [], 0
    for each in inputs:
        name = _named(each, "input")
        where = f"input {name[:80]!r}"
        datatype = tensors.check_datatype(where, each.get("datatype"))
        shape = tensors.check_shape(where, each.get("shape"))
        parameters = _parameters(each, where)
        region = _region(parameters, where)
        if region is not None:
            sources.append(Source(name, datatype, shape, region=region))
        elif "binary_data_size" in parameters:
            size = _whole(parameters, "binary_data_size", where)
            sources.append(Source(name, datatype, shape, end, size))
            end += size
        elif isinstance(each.get("data"), list):
            sources.append(Source(name, datatype, shape, data=each["data"]))
        else:
            raise invalid(where, "it has no data", "give 'data', binary_data_size or shared_memory_region")
    return tuple(sources), end


def _region(parameters: Mapping[str, Any], where: str) -> Region | None:
    if "shared_memory_region" not in parameters:
        return None
    name = parameters["shared_memory_region"]
    if not isinstance(name, str):
        raise invalid(f"{where} parameters", "shared_memory_region is no string")
    if "shared_memory_byte_size" not in parameters:
        raise invalid(f"{where} parameters", "shared_memory_byte_size is missing", "give it with shared_memory_region")
    size = _whole(parameters, "shared_memory_byte_size", where)
    return Region(name, _whole(parameters, "shared_memory_offset", where), size)


def _outputs(root: Mapping[str, Any], parameters: Mapping[str, Any]) -> tuple[tuple[Wanted, ...], bool]:
    """The outputs asked for, and whether the others go in binary."""
    default = _flag(parameters, "binary_data_output", "request", False)
    outputs = root.get("outputs", [])
    if not isinstance(outputs, list) or len(outputs) > MAX_INPUTS:
        raise invalid("infer", "the outputs are no list", f"expected at most {MAX_INPUTS} objects with a name")
    wanted = []
    for each in outputs:
        name = _named(each, "output")
        where = f"output {name[:80]!r}"
        own = _parameters(each, where)
        classes = _whole(own, "classification", where)
        region = _region(own, where)
        if classes and region:
            raise invalid(where, "classification goes with no shared memory", "ask for one of them")
        wanted.append(Wanted(name, classes, _flag(own, "binary_data", where, default), region))
    return tuple(wanted), default


def _flag(parameters: Mapping[str, Any], key: str, where: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise invalid(f"{where} parameters", f"{key} is {str(value)[:40]}", "expected true or false")
    return value
