"""Loop nests: any function from output coordinates to a value, with or without a reduction inside. The universal family."""

from redline.kernels.nest.c import render
from redline.kernels.nest.problem import Problem, Reduction, Schedule, reference, schedules
from redline.kernels.problem import Family

FAMILY = Family("nest", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Reduction", "Schedule"]
