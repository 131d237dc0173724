"""TensorProto -> numpy array. Every size is checked against the bytes that are there before anything is allocated."""

import math
from pathlib import Path

import numpy as np
import onnx

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import ModelError, UnsupportedError

_FIELDS = {
    dtypes.float32: ("float_data", np.float32),
    dtypes.float64: ("double_data", np.float64),
    dtypes.int64: ("int64_data", np.int64),
    dtypes.uint64: ("uint64_data", np.uint64),
    dtypes.uint32: ("uint64_data", np.uint64),
}  # every other type lies in int32_data, the narrow floats as their bits
_BITS = {dtypes.float16: np.uint16, dtypes.bfloat16: np.uint16, dtypes.float8_e4m3fn: np.uint8}


def element_type(code: int, where: str) -> DType:
    """The DType numbered ``code``; raises UnsupportedError for strings, complex numbers and types below 8 bits."""
    if code not in dtypes.BY_ONNX:
        names = {number: name for name, number in onnx.TensorProto.DataType.items()}
        allowed = f"allowed: {', '.join(d.name for d in dtypes.ALL)}"
        raise UnsupportedError(where, f"element type {names.get(code, code)} is not supported", allowed)
    return dtypes.BY_ONNX[code]


def to_array(tensor: onnx.TensorProto, folder: Path | None, where: str) -> np.ndarray:
    """The tensor's value. Raises ModelError when its data does not fit its shape, or lies where it must not."""
    dtype = element_type(tensor.data_type, where)
    shape = tuple(tensor.dims)
    if any(extent < 0 for extent in shape) or tensor.HasField("segment"):
        raise ModelError(where, f"a tensor of shape {shape}{' in segments' if tensor.HasField('segment') else ''} is malformed")
    count = math.prod(shape)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        flat = _from_bytes(_external(tensor, folder, where, count * dtype.size), dtype, count, where)
    elif tensor.HasField("raw_data"):
        flat = _from_bytes(tensor.raw_data, dtype, count, where)
    else:
        flat = _from_field(tensor, dtype, count, where)
    try:
        return flat.reshape(shape)
    except ValueError as error:  # an empty tensor whose other extents overflow
        raise ModelError(where, f"shape {shape} is too large") from error


def _from_bytes(raw: bytes, dtype: DType, count: int, where: str) -> np.ndarray:
    if len(raw) != count * dtype.size:
        raise ModelError(where, f"{len(raw)} bytes of data", f"its {count} elements of {dtype} take {count * dtype.size}")
    if dtype == dtypes.bool_:
        return np.frombuffer(raw, np.uint8) != 0
    return np.frombuffer(raw, dtype.numpy)


def _from_field(tensor: onnx.TensorProto, dtype: DType, count: int, where: str) -> np.ndarray:
    field, stored = _FIELDS.get(dtype, ("int32_data", np.int32))
    data = getattr(tensor, field)
    if len(data) != count:
        raise ModelError(where, f"{len(data)} values of data", f"its shape {tuple(tensor.dims)} holds {count}")
    values = np.array(data, stored)
    if dtype in _BITS:
        return values.astype(_BITS[dtype]).view(dtype.numpy)
    return values.astype(dtype.numpy)


def _external(tensor: onnx.TensorProto, folder: Path | None, where: str, num_bytes: int) -> bytes:
    """The bytes of a tensor kept in a file beside the model. The file must lie in the model's folder, links resolved."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = _contained(location, folder, where)
    offset, length = (_natural(entries.get(key, ""), key, where) for key in ("offset", "length"))
    length = num_bytes if length is None else length
    available = path.stat().st_size - (offset or 0)
    if length != num_bytes or length > available:
        seen = f"{location} offers {max(0, min(length, available))} bytes at offset {offset or 0}"
        raise ModelError(where, seen, f"the tensor takes {num_bytes}")
    with path.open("rb") as file:
        file.seek(offset or 0)
        return file.read(length)


def _contained(location: str, folder: Path | None, where: str) -> Path:
    if folder is None:
        seen = f"its data lies in the file {location!r}"
        raise ModelError(where, seen, "a model given as bytes has no folder", "load the model by its path")
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise ModelError(where, f"external data at {location!r}", "allowed: a relative path inside the model's folder")
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        allowed = "allowed: files inside the model's folder"
        raise ModelError(where, f"external data {location!r} is a link to elsewhere", allowed, "copy the file beside the model")
    if not path.is_file():
        raise ModelError(where, f"external data file {location!r} is missing", "", "put it beside the model")
    return path


def _natural(text: str, key: str, where: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ModelError(where, f"external data with {key} {text!r}", "allowed: a whole number of bytes")
    return int(text)
