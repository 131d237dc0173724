"""From the graph to kernel problems: fusion, views instead of copies, tactic candidates and the memory plan."""

from redline.lower.joining import Joint, join, joints
from redline.lower.lower import large_ones, lower, unsupported
from redline.lower.memory import MemoryPlan, plan
from redline.lower.program import Buffer, Program, Step, View

__all__ = [
    "Buffer",
    "Joint",
    "MemoryPlan",
    "Program",
    "Step",
    "View",
    "join",
    "joints",
    "large_ones",
    "lower",
    "plan",
    "unsupported",
]
