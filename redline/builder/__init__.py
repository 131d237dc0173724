"""The driver of a build: frontend, passes, lower, tune, engine."""

from redline.builder.cuda import build_cuda, check_ragged
from redline.builder.driver import build

__all__ = ["build", "build_cuda", "check_ragged"]
