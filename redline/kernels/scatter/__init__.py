"""Writing values at computed places: the scatter operators, and whatever fills an array and then overwrites parts of it."""

from redline.kernels.problem import Family
from redline.kernels.scatter.c import render
from redline.kernels.scatter.problem import Problem, Schedule, reference, schedules

FAMILY = Family("scatter", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
