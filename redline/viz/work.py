"""What the kernels of a plan do and how near to the machine's limits: equal kernels together, the largest loss first."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redline.base import dtypes
from redline.base.ceilings import Ceilings
from redline.engine import Access, KernelRecord

PRODUCTS = ("matmul", "conv", "attention")
INT8 = {"uint8", "int8"}


@dataclass(frozen=True)
class Kind:
    """Kernels of one code. ``seconds``: of all of them in one call; ``limit_s``: below which they cannot go, 0 if not known."""

    record: KernelRecord
    steps: tuple[int, ...]
    seconds: float
    limit_s: float

    @property
    def count(self) -> int:
        return len(self.steps)

    @property
    def loss_s(self) -> float:
        return self.seconds - self.limit_s


def kinds(records: Sequence[KernelRecord], seconds: Iterable[float], ceilings: Ceilings | None) -> list[Kind]:
    """The kinds of kernels with the time that each step took, those that lose the most time first."""
    steps: dict[str, list[int]] = {}
    for step, record in enumerate(records):
        steps.setdefault(record.symbol, []).append(step)
    taken = list(seconds)
    found = [
        Kind(
            records[places[0]], tuple(places), sum(taken[step] for step in places),
            sum(limit_s(records[step], ceilings) for step in places) if ceilings else 0.0,
        )
        for places in steps.values()
    ]  # fmt: skip
    return sorted(found, key=lambda kind: -kind.loss_s)


def limit_s(record: KernelRecord, ceilings: Ceilings) -> float:
    """The larger of the time of its arithmetic at the peak of its types, and of its bytes.

    Weights come from memory, activations from the shared cache.
    """
    weights = sum(_least_bytes(record, access) for access in record.reads if access.space == "weights")
    others = sum(access_bytes(access) for access in (*record.reads, *record.writes) if access.space != "weights")
    moved = weights / ceilings.memory + others / ceilings.cache
    return max(record.flops / ceilings.operations[arithmetic(record, ceilings)], moved)


def arithmetic(record: KernelRecord, ceilings: Ceilings) -> str:
    """The type in which the kernel multiplies: a key of ``ceilings.operations``."""
    operands = {access.dtype for access in record.reads[:2]}
    if record.family in PRODUCTS and operands == {"bfloat16"} and "bfloat16" in ceilings.operations:
        return "bfloat16"
    if record.family in PRODUCTS and operands <= INT8 and "int8" in ceilings.operations:
        return "int8"
    return "float32"


def access_bytes(access: Access) -> int:
    """Bytes of the distinct elements."""
    elements = math.prod(extent for extent, stride in zip(access.shape, access.strides, strict=True) if stride)
    return elements * dtypes.from_name(access.dtype).size


def _least_bytes(record: KernelRecord, access: Access) -> int:
    """What of a constant is read at least: all of it by a product, but a gather reads no more than it writes."""
    if record.family in PRODUCTS:
        return access_bytes(access)
    return min(access_bytes(access), 4 * max(math.prod(written.shape) for written in record.writes))
