"""From the graph to kernel problems: fusion, views instead of copies, tactic candidates and the memory plan."""

from redline.lower.joining import Pair, join, pairs
from redline.lower.lower import large_ones, lower, unsupported
from redline.lower.memory import MemoryPlan, plan
from redline.lower.program import Buffer, Program, Step, View

__all__ = [
    "Buffer",
    "MemoryPlan",
    "Pair",
    "Program",
    "Step",
    "View",
    "join",
    "large_ones",
    "lower",
    "pairs",
    "plan",
    "unsupported",
]
