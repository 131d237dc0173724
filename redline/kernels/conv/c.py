"""Convolutions in C: dispatch over the kinds of schedule."""

from redline.base.shapes import size
from redline.kernels.conv import direct, flat, pointwise, winograd
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.schedule import Direct, Flat, Pointwise, Schedule, Winograd, is_legal
from redline.kernels.problem import CpuTarget, KernelCode, nothing


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    """The kernel for ``problem``; ``schedule`` must be legal for it."""
    if not size(problem.out.shape):
        return nothing("conv")
    assert is_legal(problem, schedule, target), f"{schedule} does not fit {problem}"
    if isinstance(schedule, Pointwise):
        return pointwise.render(problem, schedule.product, target)
    if isinstance(schedule, Winograd):
        return winograd.render(problem, schedule, target)
    if isinstance(schedule, Flat):
        return flat.render(problem, schedule, target)
    assert isinstance(schedule, Direct)
    return direct.render(problem, schedule, target)
