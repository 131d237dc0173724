"""The gate: which layers may be in low precision. (Filled in below.)"""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
import numpy as np
Metric = Callable[[list[Mapping[str, np.ndarray]]], float]
@dataclass(frozen=True)
class Limits:
    max_drop: float | None
    min_cosine: float | None
    metric: Metric | None
def check_drop(x): pass
def best(*a): raise NotImplementedError
