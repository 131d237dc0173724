"""Running sums and products along an axis."""

from redline.kernels.problem import Family
from redline.kernels.scan.c import render
from redline.kernels.scan.problem import Problem, Schedule, reference, schedules

FAMILY = Family("scan", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
