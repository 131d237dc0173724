"""Chooses a schedule for every kernel: candidates are timed on the processor at hand and the fastest is kept."""

from redline.tune.cache import TimingCache
from redline.tune.search import Choice, Job, choose, contest

__all__ = ["Choice", "Job", "TimingCache", "choose", "contest"]
