"""Which tactic a plan takes where several are as fast: one whose constants the engine holds already, in that form.

In: the steps of the plans of one engine, plan by plan. Out: a choice for each step. A form is a constant's bytes, the view of
it, and the packing; what is packed in two ways is in the file twice.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from redline.lower import Program, Step, View
from redline.tune import Choice, Job

Source = tuple[object, ...]  # the bytes of a constant, and the view of it, without axes along which it is repeated


class Forms:
    """The forms in which the plans so far have constants: for each the names of its packings."""

    def __init__(self) -> None:
        self._known: dict[Source, set[str]] = {}

    def wanted(self, program: Program) -> dict[Job, set[str]]:
        """For each job of ``program`` the packings that the plans so far have of the constants that it reads."""
        contents, found = _contents(program), dict[Job, set[str]]()
        for step in program.steps:
            for source in _sources(step, contents).values():
                found.setdefault(Job(step.family, step.problem), set()).update(self._known.get(source, ()))
        return found

    def choices(self, program: Program, chosen: Mapping[Job, Choice]) -> list[Choice]:
        """The choice for each step of ``program``, which is then one of the plans so far."""
        contents, picked = _contents(program), []
        for step in program.steps:
            best, sources = chosen[Job(step.family, step.problem)], _sources(step, contents)
            picked.append(next((c for c in (best, *best.near) if self._has(c, sources)), best))
        for step, choice in zip(program.steps, picked, strict=True):
            for position, source in _sources(step, contents).items():
                if position in choice.code.packings:
                    self._known.setdefault(source, set()).add(choice.code.packings[position].name)
        return picked

    def _has(self, choice: Choice, sources: Mapping[int, Source]) -> bool:
        packings = choice.code.packings
        return all(packings[i].name in self._known.get(source, ()) for i, source in sources.items() if i in packings)


def _contents(program: Program) -> dict[int, bytes]:
    return {index: _digest(array) for index, array in program.constants.items()}


def _sources(step: Step, contents: Mapping[int, bytes]) -> dict[int, Source]:
    """Of the operands that are constants, by their position."""
    return {
        i: (contents[view.buffer.index], view.offset, *_axes(view))
        for i, view in enumerate(step.reads)
        if view.buffer.kind == "constant"
    }


def _axes(view: View) -> Iterator[tuple[int, int]]:
    return ((extent, stride) for extent, stride in zip(view.shape, view.strides, strict=True) if stride and extent != 1)


def _digest(array: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, digest_size=16).digest()


def distinct(picked: Sequence[Sequence[Choice]]) -> list[Choice]:
    """The choices of all plans, each code once."""
    return list({choice.code.symbol: choice for choices in picked for choice in choices}.values())
