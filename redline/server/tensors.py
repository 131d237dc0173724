"""Tensors as bytes and as JSON: little-endian, row-major; BYTES elements are a 4-byte length and the bytes.

Decoding numbers copies nothing: the arrays look into the buffer that came from the wire.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from redline.base import shapes
from redline.server.errors import invalid
from redline.server.types import BYTES, NUMPY, V2_NAMES, Shape

MAX_RANK = 32
MAX_ELEMENTS = 1 << 40
COPY_BELOW = 4 << 10  # a view costs more than so many bytes
LENGTH = struct.Struct("<I")
INTEGER_LIMITS = {name: np.iinfo(d) for name, d in NUMPY.items() if d.kind in "iu"}


def check_datatype(where: str, datatype: Any) -> str:
    """``datatype`` itself; raises for anything that is no v2 data type."""
    if not isinstance(datatype, str) or datatype not in NUMPY:
        raise invalid(where, f"unknown data type {str(datatype)[:40]!r}", f"allowed: {', '.join(V2_NAMES)}")
    return datatype


def check_shape(where: str, shape: Any) -> Shape:
    """``shape`` as a tuple of extents; raises for negative, fractional, enormous or too many extents."""
    allowed = f"allowed: at most {MAX_RANK} integers from 0 on"
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes) or len(shape) > MAX_RANK:
        raise invalid(where, "the shape is no list of extents", allowed)
    for extent in shape:
        if type(extent) is not int or not 0 <= extent < MAX_ELEMENTS:
            raise invalid(where, f"the shape has an extent {str(extent)[:40]}", allowed)
    if math.prod(extent or 1 for extent in shape) >= MAX_ELEMENTS:  # numpy refuses these even where one extent is 0
        raise invalid(where, f"the shape {shapes.text(tuple(shape))} is too large", f"allowed: below {MAX_ELEMENTS} elements")
    return tuple(shape)


def num_bytes(datatype: str, shape: Shape) -> int:
    """Bytes of a tensor of fixed-width elements."""
    return math.prod(shape) * NUMPY[datatype].itemsize


def from_bytes(where: str, datatype: str, shape: Shape, data: memoryview | bytes) -> np.ndarray:
    """The array whose elements lie in ``data``, without a copy (BYTES: with); raises where the sizes differ."""
    if datatype == BYTES:
        return _split_bytes(where, shape, memoryview(data))
    size = num_bytes(datatype, shape)
    if len(data) != size:
        seen = f"{len(data)} bytes of data were given"
        raise invalid(where, seen, f"{datatype} {shapes.text(shape)} has {size}", "send the whole tensor, little-endian")
    return np.frombuffer(data, NUMPY[datatype]).reshape(shape)


def to_bytes(array: np.ndarray, datatype: str) -> bytes | memoryview:
    """The elements of ``array`` in row-major order; a view where it is contiguous and not small."""
    if datatype == BYTES:
        return b"".join(LENGTH.pack(len(item)) + item for item in map(as_bytes, array.flat))
    if array.nbytes <= COPY_BELOW:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def as_bytes(item: Any) -> bytes:
    """An element of a BYTES tensor as bytes."""
    return item if isinstance(item, bytes) else str(item).encode()


def _split_bytes(where: str, shape: Shape, data: memoryview) -> np.ndarray:
    items: list[bytes] = []
    count, at, end = math.prod(shape), 0, len(data)
    if count * LENGTH.size > end:
        raise invalid(
            where, f"{end} bytes of data were given", f"{count} elements of BYTES need at least {count * LENGTH.size}"
        )
    for _ in range(count):
        if at + LENGTH.size > end:
            raise invalid(where, f"the data ends after {len(items)} elements", f"the shape has {count}")
        (length,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size + length
        if at > end:
            seen = f"element {len(items)} claims {length} bytes, more than there are"
            raise invalid(where, seen, "each element is a 4-byte little-endian length and its bytes")
        items.append(bytes(data[at - length : at]))
    if at != end:
        raise invalid(where, f"{end - at} bytes follow the last of {count} elements", "send the elements of the shape only")
    return object_array(items, shape)


def object_array(items: Sequence[bytes], shape: Shape) -> np.ndarray:
    """A BYTES array; numpy would otherwise turn the items into its own strings and cut trailing zeros."""
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


def from_json(where: str, datatype: str, shape: Shape, data: Any) -> np.ndarray:
    """The array of a JSON list, nested or flat; raises for wrong counts, types and numbers out of range."""
    if not isinstance(data, list):
        raise invalid(where, "its data is no list", "give the elements as a list, nested or flat")
    flat = _flatten(where, data)
    if len(flat) != math.prod(shape):
        raise invalid(where, f"{len(flat)} elements were given", f"the shape {shapes.text(shape)} has {math.prod(shape)}")
    if datatype == BYTES:
        return object_array([_string(where, item) for item in flat], shape)
    _check_elements(where, datatype, flat)
    with np.errstate(over="ignore"):
        return (
            np.array(flat, np.float64 if NUMPY[datatype].kind in "fV" else NUMPY[datatype])
            .astype(NUMPY[datatype])
            .reshape(shape)
        )


def _flatten(where: str, data: list[Any]) -> list[Any]:
    for _ in range(MAX_RANK):
        nested = [isinstance(item, list) for item in data]
        if not any(nested):
            return data
        if not all(nested):
            raise invalid(where, "its data mixes lists and elements", "nest the lists as the shape says, or give a flat list")
        data = [item for row in data for item in row]
    raise invalid(where, "its data is nested too deep", f"allowed: {MAX_RANK} levels")


def _string(where: str, item: Any) -> bytes:
    if not isinstance(item, str):
        raise invalid(where, f"a BYTES element is {type(item).__name__}", "give strings, or send the tensor in binary")
    return item.encode()


def _check_elements(where: str, datatype: str, flat: list[Any]) -> None:
    """Booleans for BOOL (0 and 1 too), integers in range for integers, numbers for floating types."""
    kinds = set(map(type, flat))
    if datatype == "BOOL":
        bad = next((v for v in flat if v not in (0, 1) or isinstance(v, str)), None)
    elif datatype in INTEGER_LIMITS:
        limits = INTEGER_LIMITS[datatype]
        if kinds <= {int} and (not flat or (min(flat) >= limits.min and max(flat) <= limits.max)):
            return
        bad = next((v for v in flat if type(v) is not int or not limits.min <= v <= limits.max), None)
    else:
        if kinds <= {int, float}:
            return
        bad = next((v for v in flat if type(v) not in (int, float)), None)
        if bad is None and None in flat:
            raise invalid(where, "an element is null", f"expected {datatype}")
    if bad is not None or None in flat:
        raise invalid(where, f"an element is {str(bad)[:40]!r}", f"expected {datatype}")


def to_json(array: np.ndarray, datatype: str) -> list[Any]:
    """A flat list of the elements; raises where one has no JSON form (BYTES that are not UTF-8)."""
    if datatype != BYTES:
        return array.reshape(-1).astype(np.float64 if NUMPY[datatype].kind in "fV" else array.dtype).tolist()
    try:
        return [as_bytes(item).decode() for item in array.flat]
    except UnicodeDecodeError as error:
        seen = f"its bytes are not UTF-8: {error.reason}"
        raise invalid("output", seen, "", "ask for it in binary ('binary_data': true)") from error
