"""Depthwise convolutions: problem.py says what, schedule.py how, c.py is the C text."""

from redline.kernels.conv import reference
from redline.kernels.depthwise.open import render, schedules
from redline.kernels.depthwise.problem import Problem
from redline.kernels.depthwise.schedule import Schedule, is_legal
from redline.kernels.problem import Family

FAMILY = Family("depthwise", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule", "is_legal"]
