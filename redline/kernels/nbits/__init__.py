"""Products with constant weights of 4 or 8 bits and a scale a block: for few rows, where reading weights is what takes time."""

from redline.kernels.nbits.c import render
from redline.kernels.nbits.problem import Problem, reference
from redline.kernels.nbits.schedule import Schedule, schedules
from redline.kernels.problem import Family

FAMILY = Family("nbits", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
