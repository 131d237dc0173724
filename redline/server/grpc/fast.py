"""ModelInfer without parsing twice what clients repeat: all of a message but its raw tensors is remembered as a Plan.

Serialisers write fields in the order of their numbers, so the raw tensors (field 7) are the end of a ModelInferRequest, and
what is before them is a valid message itself. Messages in another order are parsed whole, every time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redline.server import proto, tensors
from redline.server.errors import invalid
from redline.server.grpc.codec import decode, encode
from redline.server.memory import Regions
from redline.server.signature import Signature
from redline.server.types import InferRequest, InferResponse, Tensor, Wanted

RAW_INPUT_TAG = 0x3A  # field 7, length-delimited
RAW_OUTPUT_TAG = b"\x32"  # field 6, length-delimited
REMEMBERED = 256
REMEMBERED_BYTES = 8 << 10
MAX_TEMPLATES = 64


@dataclass(slots=True)
class Plan:
    """A request's head, checked; its inputs are all raw."""

    model: str
    version: str
    id: str
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    wanted: tuple[Wanted, ...]
    priority: int
    timeout_us: int
    parameters: Mapping[str, Any]
    templates: dict[Any, bytes] = field(default_factory=dict)

    @property
    def signature(self) -> Signature:
        return self.inputs

    def bind(self, raw: list[memoryview]) -> InferRequest:
        """The request with these raw tensors; copies nothing of them."""
        if len(raw) != len(self.inputs):
            raise invalid("infer", f"{len(raw)} raw_input_contents were given", f"there are {len(self.inputs)} inputs")
        bound = tuple(
            [Tensor(n, d, tensors.from_bytes(n, d, shape, data)) for (n, d, shape), data in zip(self.inputs, raw, strict=True)]
        )
        return InferRequest(
            self.model, self.version, bound, self.wanted, self.id, self.priority, self.timeout_us, self.parameters
        )  # fmt: skip


def split(data: memoryview) -> tuple[bytes, list[memoryview]] | None:
    """What is before the raw tensors, and these; None where the message is not in the usual order (or is damaged)."""
    at, end, raw, head = 0, len(data), [], -1
    while at < end:
        tag = data[at]
        if tag & 7 != 2 or tag & 0x80:
            return None
        start = at
        at += 1
        size = shift = 0
        while True:
            if at >= end or shift > 28:
                return None
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if at + size > end:
            return None
        if tag == RAW_INPUT_TAG:
            if head < 0:
                head = start
            raw.append(data[at : at + size])
        elif head >= 0:
            return None
        at += size
    return (bytes(data[:head]), raw) if head >= 0 else None


class FastInfer:
    """Decodes requests and encodes answers, with a memory for both."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._plans: dict[bytes, Plan] = {}

    def decode(self, data: memoryview) -> tuple[InferRequest, Plan | None]:
        """The request in a serialised ModelInferRequest, and its plan where it is one that is remembered."""
        parts = split(data)
        if parts is None:
            return decode(proto.ModelInferRequest.FromString(bytes(data)), self._regions), None
        head, raw = parts
        plan = self._plans.get(head)
        if plan is None:
            message = proto.ModelInferRequest.FromString(head)
            message.raw_input_contents.extend([bytes(piece) for piece in raw])
            request = decode(message, self._regions)
            if len(head) <= REMEMBERED_BYTES and _all_raw(message) and not any(w.region for w in request.outputs):
                self._remember(head, request)
            return request, self._plans.get(head)
        return plan.bind(raw), plan

    def _remember(self, head: bytes, request: InferRequest) -> None:
        if len(self._plans) >= REMEMBERED:
            self._plans.clear()
        inputs = tuple([(t.name, t.datatype, t.array.shape) for t in request.inputs])
        self._plans[head] = Plan(
            request.model, request.version, request.id, inputs, request.outputs, request.priority, request.timeout_us,
            request.parameters,
        )  # fmt: skip

    def encode(self, response: InferResponse, wanted: tuple[Wanted, ...], plan: Plan | None) -> list[bytes | memoryview]:
        """A serialised ModelInferResponse, in pieces."""
        if plan is None:
            return [encode(response, wanted, self._regions).SerializeToString()]
        key = (response.version, *[t.array.shape for t in response.outputs])
        head = plan.templates.get(key)
        if head is None:
            head = _response_head(response)
            if len(plan.templates) >= MAX_TEMPLATES:
                plan.templates.clear()
            plan.templates[key] = head
        pieces: list[bytes | memoryview] = [head]
        for tensor in response.outputs:
            data = tensors.to_bytes(tensor.array, tensor.datatype)
            pieces += (RAW_OUTPUT_TAG + varint(len(data)), data)
        return pieces


def _all_raw(message: Any) -> bool:
    return all(not i.HasField("contents") and not i.parameters for i in message.inputs)


def _response_head(response: InferResponse) -> bytes:
    message = proto.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
    return message.SerializeToString()  # type: ignore[no-any-return]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
