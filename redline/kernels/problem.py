"""What every kernel family has in common: operands, targets, problems, schedules and the code made from them.

A problem says what to compute (shapes, strides, types, fused expressions), a schedule how. Both are frozen, so a kernel
can be saved, replayed, fuzzed and tuned without the graph it came from.

The C function of a kernel has one signature, whatever the family:

    void SYMBOL(void *const *args, void *scratch, int64_t chunk);

``args`` are the addresses of element [0, ..., 0] of the read operands, then of the written ones. Work is cut into
``num_chunks`` independent chunks that may run in any order on any thread. ``scratch`` is private to the thread, 64-byte
aligned, of ``scratch_bytes``, its content undefined at entry.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from redline.base import shapes
from redline.base.dtypes import DType
from redline.base.shapes import StaticShape


@dataclass(frozen=True)
class Operand:
    """A strided array: ``strides`` in elements, 0 along a broadcast axis. ``constant``: its values are known at build."""

    dtype: DType
    shape: StaticShape
    strides: StaticShape
    constant: bool = False

    @staticmethod
    def contiguous(dtype: DType, shape: StaticShape, constant: bool = False) -> "Operand":
        return Operand(dtype, shape, shapes.contiguous_strides(shape), constant)

    @property
    def is_contiguous(self) -> bool:
        natural = shapes.contiguous_strides(self.shape)
        return all(e == 1 or s == n for e, s, n in zip(self.shape, self.strides, natural, strict=True))

    @property
    def num_bytes(self) -> int:
        """Bytes of distinct elements touched."""
        return self.dtype.size * shapes.size(e for e, s in zip(self.shape, self.strides, strict=True) if s)


@dataclass(frozen=True)
class CpuTarget:
    """What generated C may rely on. ``num_threads`` is the number the schedules are chosen for, not a limit."""

    name: str  # "avx512", "avx2" or "generic": the row of the ISA table
    vector_bytes: int
    num_registers: int
    num_threads: int = 1
    features: frozenset[str] = frozenset()  # "vnni", "bf16"
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20


@dataclass(frozen=True)
class Packing:
    """How a constant operand is laid out for a kernel: the array that the kernel finds at its address instead."""

    name: str
    apply: Callable[[np.ndarray], np.ndarray] = field(compare=False)


@dataclass(frozen=True)
class KernelCode:
    """C text in which the function is called KERNEL, and what the caller must provide to run it."""

    family: str
    text: str
    num_chunks: int
    scratch_bytes: int = 0
    packings: Mapping[int, Packing] = field(default_factory=dict)  # by index of the read operand

    @property
    def symbol(self) -> str:
        return f"rl_{self.family}_{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"


def nothing(family: str) -> KernelCode:
    """The kernel of a problem whose result has no elements."""
    return KernelCode(family, "#include <stdint.h>\nvoid KERNEL(void *const *args, void *scratch, int64_t chunk) {}\n", 0)


class Problem(Protocol):
    """Frozen, hashable; its ``repr`` is its identity in the caches."""

    @property
    def reads(self) -> tuple[Operand, ...]: ...
    @property
    def writes(self) -> tuple[Operand, ...]: ...
    @property
    def flops(self) -> int:
        """Arithmetic operations (a multiply-add is two)."""
        ...


@dataclass(frozen=True)
class Family:
    """One kernel family: the functions that turn its problems into schedules, code and reference answers.

    ``schedules(problem, target)`` gives the legal candidates, the best guess first. ``render(problem, schedule,
    target)`` gives C. ``reference(problem, arrays)`` computes the written arrays with numpy from the read ones (shaped
    and typed as ``problem.reads``), and is the definition of what the kernel means.
    """

    name: str
    problem: type
    schedule: type
    schedules: Callable[[Any, CpuTarget], Sequence[Any]]
    render: Callable[[Any, Any, CpuTarget], KernelCode]
    reference: Callable[[Any, Sequence[np.ndarray]], tuple[np.ndarray, ...]]


def num_bytes(problem: Problem) -> int:
    """Bytes that must move at least once: every operand read or written in full."""
    return sum(operand.num_bytes for operand in problem.reads + problem.writes)
