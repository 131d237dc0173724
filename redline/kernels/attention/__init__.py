"""Scaled dot-product attention in one kernel: the scores never leave the cache."""

from redline.kernels.attention.open import render, schedules
from redline.kernels.attention.problem import Problem, reference, scaled
from redline.kernels.attention.schedule import Schedule
from redline.kernels.problem import Family

FAMILY = Family("attention", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule", "scaled"]
