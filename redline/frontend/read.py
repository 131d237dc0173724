"""Reads an ONNX model: bytes become a ModelProto whose versions are ones that Redline knows. Tensors stay unread."""

import os
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from redline.base.errors import ModelError


@dataclass(frozen=True)
class Parsed:
    """A model that has been read, and the folder that its external data lies in."""

    model: onnx.ModelProto
    folder: Path | None


Source = str | os.PathLike[str] | bytes | onnx.ModelProto | Parsed

MAX_BYTES = (2 << 30) - 1  # protobuf's own limit
OPSETS = range(7, 29)  # the versions of the standard operator set whose differences upgrade.py settles
MAX_IR_VERSION = 14
STANDARD_DOMAINS = ("", "ai.onnx")


def read(source: Source) -> Parsed:
    """The model, and the folder that its external data lies in (None when it did not come from a file).

    Raises ModelError when the file is missing, is no ONNX model, or is of a version newer than Redline knows.
    """
    if isinstance(source, Parsed):
        return source
    folder = None
    if isinstance(source, onnx.ModelProto):
        model = source
    elif isinstance(source, bytes):
        model = _parse(source, "model")
    else:
        path = Path(source)
        folder = path.parent
        model = _parse(_bytes_of(path), path.name)
    _check_text(model)
    _check_versions(model)
    return Parsed(model, folder)


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise ModelError(str(path), "there is no such file")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(str(path), "the file is larger than 2 GiB", "protobuf ends there", "save its weights as external data")
    return path.read_bytes()


def _parse(content: bytes, where: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(where, f"not an ONNX model, or cut short ({error})") from error
    if not model.HasField("graph"):
        raise ModelError(where, "not an ONNX model: it holds no graph")
    return model


def _check_text(model: onnx.ModelProto) -> None:
    """Raises ModelError when a name is not UTF-8: protobuf then hands it out as bytes."""
    stack: list[Message] = [model]
    while stack:
        for field, value in stack.pop().ListFields():
            values = [value] if isinstance(value, (str, bytes, Message)) else value
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                stack.extend(values)
            elif field.type == FieldDescriptor.TYPE_STRING and any(isinstance(text, bytes) for text in values):
                raise ModelError("model", f"a {field.name} is not UTF-8 text", "", "the file is damaged: export it again")


def _check_versions(model: onnx.ModelProto) -> None:
    if model.ir_version > MAX_IR_VERSION:
        seen = f"the model is of ONNX IR version {model.ir_version}"
        raise ModelError("model", seen, f"allowed: up to {MAX_IR_VERSION}", "export it with an older onnx, or upgrade Redline")
    opset_version(model.opset_import, "model")


def opset_version(imports: "list[onnx.OperatorSetIdProto]", where: str) -> int:
    """The version of the standard operators among ``imports``; the newest known where none is named (nothing uses it)."""
    versions = [item.version for item in imports if item.domain in STANDARD_DOMAINS]
    if not versions:
        return OPSETS[-1]
    if versions[0] not in OPSETS:
        remedy = "convert it with onnx.version_converter" if versions[0] < OPSETS[0] else "export it for an older opset"
        raise ModelError(where, f"it uses opset {versions[0]}", f"allowed: {OPSETS[0]}..{OPSETS[-1]}", remedy)
    return versions[0]
