"""The arrays that the candidates of one problem are timed on: harmless values, constants in copies that take turns.

In: the operands of a problem and how a candidate packs its constants. Out: arrays in the order of the candidate's refs.
Candidates share what they read alike, so a problem of large constants is timed in little more memory than one candidate
needs.
"""

from dataclasses import replace
from typing import Protocol

import numpy as np

from redline.base.extents import at_nominal
from redline.base.shapes import size
from redline.kernels.problem import KernelCode, Operand

REPEATS = 5  # steps of a candidate in one run that count; one before them warms the activations up
COPIES_BYTES = 64 << 20  # of one constant in copies, more than the caches hold


class Operands(Protocol):
    """What the arrays depend on."""

    @property
    def reads(self) -> tuple[Operand, ...]: ...
    @property
    def writes(self) -> tuple[Operand, ...]: ...


def at_tuned_shape(problem: Operands) -> list[Operand]:
    """What the problem reads and writes, at the tuned shape."""
    operands = problem.reads + problem.writes
    return [replace(o, shape=at_nominal(o.shape), strides=at_nominal(o.strides)) for o in operands]


class Stock:
    """Arrays by operand and packing, made when they are first asked for."""

    def __init__(self, problem: Operands) -> None:
        self._operands = at_tuned_shape(problem)
        self._random = np.random.default_rng(0)
        self._plain: dict[int, np.ndarray] = {}
        self._copies: dict[tuple[int, str], list[np.ndarray]] = {}

    def arrays(self, code: KernelCode) -> list[np.ndarray]:
        """The operands in order, constants once for every repeat and the one before them."""
        found: list[np.ndarray] = []
        for place, operand in enumerate(self._operands):
            copies = self._of(place, operand, code)
            found += [copies[repeat % len(copies)] for repeat in range(REPEATS + 1 if operand.constant else 1)]
        return found

    def constant_bytes(self, code: KernelCode) -> int:
        """Of all constants, as the candidate reads them."""
        return sum(self._of(i, operand, code)[0].nbytes for i, operand in enumerate(self._operands) if operand.constant)

    def _of(self, place: int, operand: Operand, code: KernelCode) -> list[np.ndarray]:
        packing = code.packings.get(place)
        key = place, packing.name if packing else ""
        if key not in self._copies:
            if place not in self._plain:
                self._plain[place] = self._filled(operand)
            array = self._plain[place]
            if packing:
                array = packing.apply(array.reshape(-1)[: size(operand.shape)].reshape(operand.shape))
            enough = max(1, min(REPEATS + 1, -(-COPIES_BYTES // max(1, array.nbytes))))
            self._copies[key] = [_copy(array) for _ in range(enough if operand.constant else 1)]
        return self._copies[key]

    def _filled(self, operand: Operand) -> np.ndarray:
        """As many elements as the strides reach over, of harmless values."""
        reach = 1 + sum(abs(s) * (e - 1) for e, s in zip(operand.shape, operand.strides, strict=True) if e)
        count = max(reach, size(operand.shape), 1)
        if operand.dtype.is_float:
            return self._random.standard_normal(count, np.float32).astype(operand.dtype.numpy)
        return self._random.integers(0, 2, count).astype(operand.dtype.numpy)


def aligned(num_bytes: int) -> np.ndarray:
    """Zeroed memory that begins at a multiple of 64."""
    raw: np.ndarray = np.zeros(num_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + num_bytes]


def _copy(array: np.ndarray) -> np.ndarray:
    copy: np.ndarray = aligned(array.nbytes).view(array.dtype)
    copy[...] = array.reshape(-1)
    return copy
