"""Maximum and average over windows of channels-last tensors."""

from redline.kernels.pool.c import render
from redline.kernels.pool.problem import Problem, Schedule, Window, reference, schedules
from redline.kernels.problem import Family

FAMILY = Family("pool", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule", "Window"]
