"""Normalisations along the trailing axis: softmax, log_softmax, layer_norm, rms_norm."""

from redline.kernels.problem import Family
from redline.kernels.row.c import render
from redline.kernels.row.problem import Problem, Schedule, reference, schedules

FAMILY = Family("row", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
