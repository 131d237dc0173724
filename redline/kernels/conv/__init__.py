"""Convolutions: problem.py says what, schedule.py how, candidates.py which ways are worth trying.

direct.py, pointwise.py, flat.py and winograd.py are the ways; c.py chooses.
"""

from redline.kernels.conv.open import render, schedules
from redline.kernels.conv.problem import Problem, reference
from redline.kernels.conv.schedule import Schedule
from redline.kernels.problem import Family

FAMILY = Family("conv", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule", "reference"]
