"""Which tactic a plan takes where several are as fast: one whose constants the engine holds already, in that form.

In: the steps of the plans of one engine, plan by plan. Out: a choice for each step. A form is a constant's bytes, the view of
it, and the packing; what is packed in two ways is in the file twice.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from redline.kernels.problem import KernelCode
from redline.lower import Program, Step
from redline.tune import Choice, Job

Form = tuple[object, ...]


class Forms:
    """The forms of constants that the plans so far have."""

    def __init__(self) -> None:
        self._known: set[Form] = set()

    def choices(self, program: Program, chosen: Mapping[Job, Choice]) -> list[Choice]:
        """The choice for each step of ``program``, which is then one of the plans so far."""
        contents = {index: _digest(array) for index, array in program.constants.items()}
        picked = []
        for step in program.steps:
            best = chosen[Job(step.family, step.problem)]
            there = (choice for choice in (best, *best.near) if _forms(step, choice.code, contents) <= self._known)
            picked.append(next(there, best))
        for step, choice in zip(program.steps, picked, strict=True):
            self._known |= _forms(step, choice.code, contents)
        return picked


def _forms(step: Step, code: KernelCode, contents: Mapping[int, bytes]) -> set[Form]:
    return {
        (contents[view.buffer.index], view.shape, view.strides, view.offset, code.packings[i].name)
        for i, view in enumerate(step.reads)
        if i in code.packings and view.buffer.kind == "constant"
    }


def _digest(array: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, digest_size=16).digest()


def distinct(picked: Sequence[Sequence[Choice]]) -> list[Choice]:
    """The choices of all plans, each code once."""
    return list({choice.code.symbol: choice for choices in picked for choice in choices}.values())
