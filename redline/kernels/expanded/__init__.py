"""A convolution of one tap and the depthwise one behind it in one kernel: problem.py says what, schedule.py how, c.py the C."""

from redline.kernels.expanded.c import render
from redline.kernels.expanded.problem import Problem, applies, reference
from redline.kernels.expanded.schedule import Schedule, schedules
from redline.kernels.problem import Family

FAMILY = Family("expanded", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule", "applies"]
