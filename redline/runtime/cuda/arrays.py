"""Arrays that lie on the device, as callers bring them: ``__cuda_array_interface__`` or DLPack; and one of our own."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.base import shapes
from redline.base.errors import InputError
from redline.base.shapes import StaticShape
from redline.runtime.ports import Port

ON_CUDA = (2, 13)  # DLPack's numbers for device memory: cuda, managed
DLPACK_KINDS = {0: "i", 1: "u", 2: "f", 4: "bf", 6: "b"}
ALIGNMENT = 16


@dataclass(frozen=True)
class DeviceArray:
    """Contiguous device memory; ``owner`` keeps it alive."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    owner: Any = None

    @property
    def num_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3}


def on_device(value: Any) -> bool:
    """Whether ``value`` says that its elements are in device memory."""
    if isinstance(value, np.ndarray):
        return False
    if isinstance(value, DeviceArray):
        return True
    if hasattr(value, "__cuda_array_interface__"):
        return True
    return hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] in ON_CUDA


def take(value: Any, port: Port, kind: str, shape: StaticShape) -> DeviceArray:
    """``value`` where it is; raises InputError for another type or layout than the port's, or another shape than ``shape``."""
    if isinstance(value, DeviceArray):
        found = value
    elif hasattr(value, "__cuda_array_interface__"):
        found = _from_interface(value, port, shape)
    else:
        found = _from_dlpack(value, port)
    if found.shape != shape or found.dtype != port.dtype:
        seen = f"{found.dtype} {shapes.text(found.shape)} was given"
        raise InputError(f"{kind} {port.name!r}", seen, f"expected {port.dtype} {shapes.text(shape)}")
    if found.address % ALIGNMENT:
        raise InputError(f"{kind} {port.name!r}", "its address is not a multiple of 16", "", "copy it")
    return found


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    natural = shapes.contiguous_strides(shape)
    return strides is None or all(e == 1 or s == n for e, s, n in zip(shape, strides, natural, strict=True))


def _from_interface(value: Any, port: Port, expected: StaticShape) -> DeviceArray:
    facts = value.__cuda_array_interface__
    if facts["typestr"] == port.dtype.str and facts["shape"] == expected and facts.get("strides") is None:
        return DeviceArray(int(facts["data"][0]), expected, port.dtype, value)  # the short way, for the usual case
    dtype = np.dtype(facts["typestr"])
    shape = tuple(facts["shape"])
    strides = facts.get("strides")
    steps = None if strides is None else tuple(s // dtype.itemsize for s in strides)
    if not _contiguous(shape, steps):
        raise InputError(f"{port.name!r}", "the array is not contiguous", "", "make a contiguous copy")
    return DeviceArray(int(facts["data"][0]), shape, dtype, value)


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64),
    )  # fmt: skip


def _from_dlpack(value: Any, port: Port) -> DeviceArray:
    capsule = value.__dlpack__()
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    if not _contiguous(shape, strides):
        raise InputError(f"{port.name!r}", "the tensor is not contiguous", "", "make a contiguous copy")
    kind = DLPACK_KINDS.get(tensor.code, "?")
    names = {"i": f"int{tensor.bits}", "u": f"uint{tensor.bits}", "f": f"float{tensor.bits}", "bf": "bfloat16", "b": "bool"}
    name = names.get(kind, kind)
    dtype = port.dtype if name == str(port.dtype) else np.dtype(name) if kind in "iuf" else np.dtype(object)
    return DeviceArray(int(tensor.data or 0) + tensor.offset, shape, dtype, capsule)
