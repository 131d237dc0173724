"""Which dimensions a call has, by the shapes of its inputs, and which shapes its outputs then have."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.base import shapes
from redline.base.errors import InputError
from redline.base.extents import FIRST_FOUND, MAX_DIMS
from redline.base.shapes import StaticShape
from redline.engine import Header, shape_at, sole_dimension


@dataclass(frozen=True)
class Bound:
    """One call's shapes: the dimensions as C reads them (None: none are open), of the inputs, of the outputs.

    Outputs whose shape depends on data have their largest here; ``found`` are their numbers.
    """

    dims: Any
    inputs: tuple[StaticShape, ...]
    outputs: tuple[StaticShape, ...]
    found: tuple[int, ...] = ()


class Profile:
    """The shapes that an engine takes."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.num_given = sum(not dim.is_found for dim in header.dims)
        self.found = tuple(
            number for number, io in enumerate(header.outputs)
            if any(power for terms in io.extents for _, *powers in terms for power in powers[self.num_given :])
        )  # fmt: skip
        self.closed = None if header.dims else Bound(None, *(tuple(io.shape for io in ios) for ios in _ports(header)))

    def bind(self, inputs: Mapping[str, Any], last: Bound | None) -> Bound:
        """The shapes of a call with ``inputs``, which have the right names; ``last`` if it has the same.

        Raises InputError naming the input, the axis, what it is and what is allowed.
        """
        if self.closed is not None:
            return self.closed
        given = tuple(np.shape(inputs[io.name]) for io in self.header.inputs)
        if last is not None and last.inputs == given:
            return last
        dims = self._dims(given)
        largest = [*dims, *(dim.max for dim in self.header.dims[self.num_given :])]
        found = [tuple(shape_at(io, largest) for io in ios) for ios in _ports(self.header)]
        for io, shape, expected in zip(self.header.inputs, given, found[0], strict=True):
            if shape != expected:
                named = ", ".join(f"{dim.name}={value}" for dim, value in zip(self.header.dims, dims, strict=False))
                seen = f"{io.dtype} {shapes.text(shape)} was given"
                raise InputError(f"input {io.name!r}", seen, f"with {named} expected {io.dtype} {shapes.text(expected)}")
        return Bound((ctypes.c_int64 * MAX_DIMS)(*dims), found[0], found[1], self.found)

    def shape_of(self, output: int, bound: Bound) -> StaticShape:
        """The shape of an output after the run that had ``bound``."""
        dims = [*bound.dims[: self.num_given], *bound.dims[FIRST_FOUND : FIRST_FOUND + len(self.header.dims) - self.num_given]]
        return tuple(shape_at(self.header.outputs[output], dims))

    def _dims(self, given: Sequence[StaticShape]) -> list[int]:
        """The value of each dimension, by the first input axis that tells it."""
        values: dict[int, int] = {}
        for io, shape in zip(self.header.inputs, given, strict=True):
            if io.extents and len(shape) != len(io.shape):
                seen = f"{shapes.text(shape)} was given"
                raise InputError(f"input {io.name!r}", seen, f"expected {len(io.shape)} axes, at most {shapes.text(io.shape)}")
            for axis, terms in enumerate(io.extents):
                sole = sole_dimension(terms)
                if sole is not None and sole[0] not in values:
                    values[sole[0]] = self._value(io.name, axis, shape[axis], *sole)
        return [values[index] for index in range(self.num_given)]

    def _value(self, name: str, axis: int, extent: int, index: int, factor: int) -> int:
        dim = self.header.dims[index]
        if extent % factor or not dim.min <= extent // factor <= dim.max:
            seen = f"axis {axis} ({dim.name}) is {extent}"
            step = f" in steps of {factor}" if factor > 1 else ""
            allowed = f"allowed: {dim.min * factor}..{dim.max * factor}{step}"
            raise InputError(f"input {name!r}", seen, allowed, "build the engine again with a wider --shapes to take it")
        return extent // factor


def _ports(header: Header) -> tuple[Any, Any]:
    return header.inputs, header.outputs
