"""Which plan a call runs, by the shapes of its inputs: one made for exactly these, else the narrowest that takes them.

What has been found for a call's shapes is kept, in a bounded number, by whoever asks: the dimensions of a call are its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from redline.base import shapes
from redline.base.errors import InputError
from redline.base.shapes import StaticShape
from redline.engine import Header, without_steps
from redline.runtime.profile import Bound, Profile

Given = tuple[StaticShape, ...]
MAX_KNOWN = 256  # shapes that a context remembers


class Dispatch:
    """The plans of an engine by the shapes that they take. ``closed``: all calls', where there is one plan of one shape."""

    def __init__(self, header: Header) -> None:
        self.profiles = tuple(map(Profile, without_steps(header)))
        self.closed = self.profiles[0].closed if len(self.profiles) == 1 else None
        self._names = tuple(io.name for io in header.inputs)
        self._exact = {p.inputs: p for p in reversed(self.profiles) if not p.num_given}
        self._open = sorted((p for p in self.profiles if p.num_given), key=lambda profile: profile.size)

    def bind(self, inputs: Mapping[str, Any], last: Bound | None, known: dict[Given, Bound]) -> Bound:
        """The shapes of a call with ``inputs``, which have the right names; ``last`` if it has the same.

        Raises InputError naming the input, the axis, what it is and what is allowed.
        """
        if self.closed is not None:
            return self.closed
        given = tuple([_shape(inputs[name]) for name in self._names])
        if last is not None and last.inputs == given:
            return last
        bound = known.get(given)
        if bound is None:
            bound = self._found(given)
            if len(known) >= MAX_KNOWN:
                known.clear()
            known[given] = bound
        return bound

    def shapes_of(self, inputs: Mapping[str, Any]) -> Given:
        return tuple(_shape(inputs[name]) for name in self._names)

    def _found(self, given: Given) -> Bound:
        exact = self._exact.get(given)
        if exact is not None:
            return exact.bind(given)
        refusals = []
        for profile in self._open:
            try:
                return profile.bind(given)
            except InputError as error:
                refusals.append((profile, error))
        if len(self.profiles) == 1:
            if refusals:
                raise refusals[0][1]
            return self.profiles[0].bind(given)  # which says what it expects
        raise self._outside(given, refusals)

    def _outside(self, given: Given, refusals: list[tuple[Profile, InputError]]) -> InputError:
        """The first refusal, and what each plan allows."""
        allowed = [
            f"{profile.header.name}: {error.allowed}"
            if not refusals or (error.where, error.seen) == (refusals[0][1].where, refusals[0][1].seen)
            else f"{profile.header.name}: {error.where} {error.seen}, {error.allowed}"
            for profile, error in refusals
        ]
        exact = [profile for profile in self.profiles if not profile.num_given]
        allowed += [f"{profile.header.name}: exactly {self._text(profile.inputs)}" for profile in exact]
        where, seen = (refusals[0][1].where, refusals[0][1].seen) if refusals else ("inputs", f"{self._text(given)} was given")
        return InputError(where, seen, "; ".join(allowed), "build the engine again with --shapes that take it")

    def _text(self, given: Given) -> str:
        return ", ".join(f"{name} {shapes.text(shape)}" for name, shape in zip(self._names, given, strict=True))


def _shape(value: Any) -> StaticShape:
    if type(value) is np.ndarray:
        return value.shape
    facts = getattr(value, "__cuda_array_interface__", None)  # of memory that numpy cannot read
    return np.shape(value) if facts is None else tuple(facts["shape"])
