"""A convolution and what reads its result, a band of rows at a time: problem.py says what, cut.py how readers are cut to a
band, schedule.py how to compute it, c.py the C."""

from redline.kernels.banded.c import render
from redline.kernels.banded.problem import MAKER, Problem, Reader, applies, reference
from redline.kernels.banded.schedule import Schedule, schedules
from redline.kernels.problem import Family

FAMILY = Family("banded", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "MAKER", "Problem", "Reader", "Schedule", "applies"]
