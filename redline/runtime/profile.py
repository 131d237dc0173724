"""Which dimensions a call of a plan has, by the shapes of its inputs, and which shapes its outputs then have."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from redline.base import shapes
from redline.base.errors import InputError
from redline.base.shapes import StaticShape
from redline.engine import Header, shape_at, sole_dimension
from redline.runtime.library import FIRST_FOUND, MAX_DIMS


@dataclass(frozen=True)
class Bound:
    """One call's shapes: the dimensions as C reads them (None: none are open), of the inputs, of the outputs; and its plan.

    Outputs whose shape depends on data have their largest here; ``found`` are their numbers.
    """

    dims: Any
    inputs: tuple[StaticShape, ...]
    outputs: tuple[StaticShape, ...]
    found: tuple[int, ...] = ()
    plan: int = 0


class Profile:
    """The shapes that a plan takes."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.num_given = sum(not dim.is_found for dim in header.dims)
        self.found = tuple(
            number for number, io in enumerate(header.outputs)
            if any(power for terms in io.extents for _, *powers in terms for power in powers[self.num_given :])
        )  # fmt: skip
        self.size = prod(dim.max - dim.min + 1 for dim in header.dims[: self.num_given])

    @property
    def inputs(self) -> tuple[StaticShape, ...]:
        """The largest shapes; the only ones where nothing is open."""
        return tuple(io.shape for io in self.header.inputs)

    @property
    def closed(self) -> Bound | None:
        """All calls' shapes, where they are the same for all; else None."""
        header = self.header
        return None if header.dims else Bound(None, self.inputs, tuple(io.shape for io in header.outputs), (), header.plan)

    def bind(self, given: tuple[StaticShape, ...]) -> Bound:
        """The shapes of a call whose inputs have the shapes ``given``.

        Raises InputError naming the input, the axis, what it is and what is allowed.
        """
        dims = self._dims(given)
        largest = [*dims, *(dim.max for dim in self.header.dims[self.num_given :])]
        inputs, outputs = ([tuple(shape_at(io, largest)) for io in ios] for ios in (self.header.inputs, self.header.outputs))
        for io, shape, expected in zip(self.header.inputs, given, inputs, strict=True):
            if shape != expected:
                named = ", ".join(f"{dim.name}={value}" for dim, value in zip(self.header.dims, dims, strict=False))
                seen = f"{io.dtype} {shapes.text(shape)} was given"
                expects = f"expected {io.dtype} {shapes.text(expected)}"
                raise InputError(f"input {io.name!r}", seen, f"with {named} {expects}" if named else expects)
        c_dims = (ctypes.c_int64 * MAX_DIMS)(*dims) if self.header.dims else None
        return Bound(c_dims, tuple(inputs), tuple(outputs), self.found, self.header.plan)

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
