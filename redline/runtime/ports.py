"""The inputs and outputs of an engine as numpy sees them, and the check of the arrays that a caller brings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import InputError, closest
from redline.engine import IO


class Port:
    """One input or output: ``name``, numpy ``dtype``, ``shape``."""

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, io: IO) -> None:
        self.name, self.shape, self.dtype = io.name, io.shape, dtypes.from_name(io.dtype).numpy

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype} {shapes.text(self.shape)}"

    def takes(self, array: Any) -> bool:
        """Whether the kernels can read or write ``array`` where it is."""
        return (
            type(array) is np.ndarray
            and array.dtype == self.dtype
            and array.shape == self.shape
            and array.flags.c_contiguous
            and array.flags.aligned
        )

    def accept(self, value: Any) -> np.ndarray:
        """``value`` as an array that ``takes`` is true for, copied if need be; raises InputError for another type or shape."""
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise InputError(f"input {self.name!r}", f"it is no array: {error}", f"expected {self._kind()}") from error
        self._check(array, "input")
        return np.require(array, requirements=("C", "A"))

    def accept_output(self, array: np.ndarray) -> np.ndarray:
        """``array`` itself; raises InputError unless the engine can write its output straight into it."""
        where, expected = f"output {self.name!r}", f"expected {self._kind()}"
        if not isinstance(array, np.ndarray):
            raise InputError(where, f"{type(array).__name__} was given", f"{expected} in a numpy array")
        self._check(array, "output")
        if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
            raise InputError(where, "the array is not contiguous, aligned and writable", expected, "make it with numpy.empty")
        return array

    def _check(self, array: np.ndarray, kind: str) -> None:
        if array.dtype != self.dtype or array.shape != self.shape:
            seen = f"{array.dtype} {shapes.text(array.shape)} was given"
            remedy = f"convert it with .astype({str(self.dtype)!r})" if array.shape == self.shape else ""
            raise InputError(f"{kind} {self.name!r}", seen, f"expected {self._kind()}", remedy)

    def _kind(self) -> str:
        return f"{self.dtype} {shapes.text(self.shape)}"


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
