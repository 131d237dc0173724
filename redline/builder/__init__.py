"""The driver of a build: frontend, passes, lower, tune, engine."""

from redline.builder.cuda import build_cuda
from redline.builder.driver import build, fixed_alone

__all__ = ["build", "build_cuda", "fixed_alone"]
