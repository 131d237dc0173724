"""The first k of each row in order: TopK, and sorting whole rows."""

from redline.kernels.problem import Family
from redline.kernels.sort.c import render
from redline.kernels.sort.problem import Problem, Schedule, reference, schedules

FAMILY = Family("sort", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
