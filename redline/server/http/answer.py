"""An inference's answer as an HTTP response: JSON, then the binary tensors. Its head is remembered in the request's plan."""

from typing import Any

import orjson

from redline.server import tensors
from redline.server.http import responses
from redline.server.http.head import Head
from redline.server.http.infer import Plan
from redline.server.http.responses import Pieces
from redline.server.memory import Regions
from redline.server.types import BYTES, InferResponse, Region

MAX_TEMPLATES = 64


def respond(plan: Plan, response: InferResponse, head: Head, regions: Regions) -> Pieces:
    """The answer to a request; outputs in shared memory are written there."""
    coding = responses.asked_for(head.accept_encoding)
    key = (response.version, *[t.array.shape for t in response.outputs])
    if head.keep_alive and not coding:
        template = plan.templates.get(key)
        if template is not None:
            return [template, *[tensors.to_bytes(t.array, t.datatype) for t in response.outputs]]
    pieces, described = _describe(plan, response, regions)
    body: dict[str, Any] = {"model_name": response.model, "model_version": response.version, "outputs": described}
    if response.id:
        body["id"] = response.id
    text = orjson.dumps(body)
    length = len(text) + sum(map(len, pieces))
    if coding:
        whole = responses.compress([text, *pieces], coding)
        extra = b"Content-Encoding: %b\r\n" % coding.encode() + _json_length(text, pieces)
        kind = responses.BINARY if pieces else responses.JSON
        return responses.plain(200, kind, whole, head.keep_alive, extra)
    if not pieces:
        return responses.plain(200, responses.JSON, text, head.keep_alive)
    start = responses.head(200, responses.BINARY, length, head.keep_alive, _json_length(text, pieces)) + text
    if head.keep_alive and len(pieces) == len(response.outputs) and all(t.datatype != BYTES for t in response.outputs):
        if len(plan.templates) >= MAX_TEMPLATES:
            plan.templates.clear()
        plan.templates[key] = start
    return [start, *pieces]


def _json_length(text: bytes, pieces: Pieces) -> bytes:
    return b"Inference-Header-Content-Length: %d\r\n" % len(text) if pieces else b""


def _describe(plan: Plan, response: InferResponse, regions: Regions) -> tuple[Pieces, list[dict[str, Any]]]:
    """The binary part, and the JSON of the outputs."""
    pieces: Pieces = []
    described = []
    for index, tensor in enumerate(response.outputs):
        wanted = plan.wanted[index] if plan.wanted else None
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if wanted is not None and wanted.region is not None:
            data = tensors.to_bytes(tensor.array, tensor.datatype)
            regions.write(wanted.region, data)
            entry["parameters"] = _region_parameters(wanted.region, len(data))
        elif wanted.binary if wanted is not None else plan.binary_default:
            data = tensors.to_bytes(tensor.array, tensor.datatype)
            entry["parameters"] = {"binary_data_size": len(data)}
            pieces.append(data)
        else:
            entry["data"] = tensors.to_json(tensor.array, tensor.datatype)
        described.append(entry)
    return pieces, described


def _region_parameters(region: Region, num_bytes: int) -> dict[str, Any]:
    offset = {"shared_memory_offset": region.offset} if region.offset else {}
    return {"shared_memory_region": region.name, **offset, "shared_memory_byte_size": num_bytes}
