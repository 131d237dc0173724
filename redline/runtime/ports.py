"""The inputs and outputs of an engine as numpy sees them, and the check of the arrays that a caller brings."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import InputError, closest
from redline.base.shapes import StaticShape
from redline.engine import IO, OpenDim, shape_at


class Port:
    """One input or output: ``name``, numpy ``dtype``, ``shape``.

    Where dimensions are open, ``shape`` is the one that the engine was tuned for, and ``text`` names the dimensions.
    """

    __slots__ = ("dtype", "name", "shape", "text")

    def __init__(self, io: IO, dims: Sequence[OpenDim] = ()) -> None:
        self.name, self.dtype = io.name, dtypes.from_name(io.dtype).numpy
        self.shape = shape_at(io, [dim.opt for dim in dims])
        self.text = "x".join(_axis(terms, dims) for terms in io.extents) or shapes.text(io.shape)

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype} {self.text}"

    def takes(self, array: Any, shape: StaticShape | None = None) -> bool:
        """Whether the kernels can read or write ``array``, which should have ``shape``, where it is."""
        return (
            type(array) is np.ndarray
            and array.dtype == self.dtype
            and array.shape == (self.shape if shape is None else shape)
            and array.flags.c_contiguous
            and array.flags.aligned
        )

    def accept(self, value: Any, shape: StaticShape | None = None) -> np.ndarray:
        """``value`` as an array that ``takes`` is true for, copied if need be; raises InputError for another type or shape.

        Arrays of other libraries (DLPack, the buffer protocol) are read where they are; ``bytes`` and the like hold the
        elements in row-major order. ``shape``: what this call expects, by default the port's own.
        """
        shape = self.shape if shape is None else shape
        try:
            array = self._as_array(value, shape)
        except (ValueError, TypeError, RuntimeError, BufferError) as error:
            raise InputError(f"input {self.name!r}", f"it is no array: {error}", f"expected {self._kind(shape)}") from error
        self._check(array, shape, "input")
        return np.require(array, requirements=("C", "A"))

    def accept_output(self, value: Any, shape: StaticShape | None = None) -> np.ndarray:
        """An array over the memory of ``value``; raises InputError unless the engine can write its output straight into it."""
        shape = self.shape if shape is None else shape
        where, expected = f"output {self.name!r}", f"expected {self._kind(shape)}"
        try:
            array = self._as_array(value, shape) if isinstance(value, np.ndarray) or _lends_memory(value) else None
        except (ValueError, TypeError, RuntimeError, BufferError):
            array = None
        if array is None:
            raise InputError(where, f"{type(value).__name__} was given", f"{expected} in a numpy array or a writable buffer")
        self._check(array, shape, "output")
        if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
            raise InputError(where, "the array is not contiguous, aligned and writable", expected, "make it with numpy.empty")
        return array

    def _as_array(self, value: Any, shape: StaticShape) -> np.ndarray:
        if isinstance(value, np.ndarray):
            return value
        if _is_flat_bytes(value) and self.dtype != np.uint8:
            return self._from_bytes(memoryview(value), shape)
        if hasattr(value, "__array_interface__") or not hasattr(value, "__dlpack__"):
            return np.asarray(value)
        array = np.from_dlpack(value)
        return array if array.flags.writeable or not hasattr(value, "__array__") else np.asarray(value)

    def _from_bytes(self, value: memoryview, shape: StaticShape) -> np.ndarray:
        if value.nbytes != math.prod(shape) * self.dtype.itemsize:
            raise ValueError(f"{value.nbytes} bytes were given")
        return np.frombuffer(value, self.dtype).reshape(shape)

    def _check(self, array: np.ndarray, shape: StaticShape, kind: str) -> None:
        if array.dtype != self.dtype or array.shape != shape:
            seen = f"{array.dtype} {shapes.text(array.shape)} was given"
            remedy = f"convert it with .astype({str(self.dtype)!r})" if array.shape == shape else ""
            raise InputError(f"{kind} {self.name!r}", seen, f"expected {self._kind(shape)}", remedy)

    def _kind(self, shape: StaticShape) -> str:
        return f"{self.dtype} {shapes.text(shape)}"


def _axis(terms: Sequence[Sequence[int]], dims: Sequence[OpenDim]) -> str:
    """``batch``, ``2*width+1``: an axis as people read it."""
    texts = []
    for factor, *powers in terms:
        names = [dim.name for dim, power in zip(dims, powers, strict=True) for _ in range(power)]
        texts.append("*".join([*([str(factor)] if factor != 1 or not names else []), *names]))
    return "+".join(texts)


def _is_flat_bytes(value: Any) -> bool:
    """Whether ``value`` is a row of bytes, as it comes from a socket or a file."""
    return isinstance(value, bytes | bytearray) or (isinstance(value, memoryview) and value.format == "B" and value.ndim == 1)


def _lends_memory(value: Any) -> bool:
    return hasattr(value, "__dlpack__") or hasattr(value, "__array_interface__") or _has_buffer(value)


def _has_buffer(value: Any) -> bool:
    try:
        return not memoryview(value).readonly
    except TypeError:
        return False


def check_names(given: Mapping[str, Any], ports: tuple[Port, ...], kind: str) -> None:
    """Raises InputError when the names given are not those of the inputs, or not among those of the outputs."""
    known = [port.name for port in ports]
    for name in given:
        if name not in known:
            raise InputError(f"{kind}s", f"there is no {kind} {name!r}", closest(str(name), known))
    missing = [port for port in ports if port.name not in given]
    if missing and kind == "input":
        raise InputError("inputs", f"missing: {', '.join(map(repr, missing))}")


def check_apart(inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
    """Raises InputError when an output given by the caller shares memory with an input or another output."""
    for index, array in enumerate(outputs):
        if any(np.may_share_memory(array, other) for other in inputs + outputs[:index]):
            raise InputError("outputs", "an array given for an output shares memory with another array of the call")
