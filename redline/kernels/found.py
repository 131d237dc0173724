"""What kernels have in common that find an extent: C that tells the steps behind them, and the one schedule there is."""

from dataclasses import dataclass
from typing import Any

from redline.base.extents import FIRST_FOUND
from redline.kernels.problem import CpuTarget


@dataclass(frozen=True)
class Schedule:
    """There is nothing to choose."""


def schedules(problem: Any, target: CpuTarget) -> list[Schedule]:
    return [Schedule()]


def tell(problem: Any, value: str) -> str:
    """C: the extent of ``problem.slot`` is ``value``. Only the executor's call waits behind the step for it."""
    last = len(problem.reads) + len(problem.writes)
    return f"((int64_t *)args[{last}])[{FIRST_FOUND + problem.slot}] = {value};"
