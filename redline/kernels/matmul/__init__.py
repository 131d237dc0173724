"""Matrix products: problem.py says what, schedule.py how, c.py is the C text."""

from redline.kernels.matmul.open import render, schedules
from redline.kernels.matmul.problem import Problem, product, reference
from redline.kernels.matmul.schedule import Schedule, is_legal
from redline.kernels.problem import Family

FAMILY = Family("matmul", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule", "is_legal", "product"]
