"""What a lower precision costs: the answers of an engine beside those of the same graph in float32."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from redline.runtime import Engine
from redline.runtime.samples import random_inputs

SEED, NUM_SAMPLES = 0, 2


def worst_error(engine: Engine, reference: Engine) -> dict[str, Any]:
    """The output with the largest relative L2 error on random inputs, and that error to two digits."""
    errors: dict[str, float] = {}
    for sample in range(NUM_SAMPLES):
        feed = random_inputs(engine.header.inputs, SEED + sample)
        actual, expected = engine.run(feed), reference.run(feed)
        for name in expected:
            errors[name] = max(errors.get(name, 0.0), _relative_l2(actual[name], expected[name]))
    return _worst(errors)


def _worst(errors: Mapping[str, float]) -> dict[str, Any]:
    name = max(errors, key=lambda key: errors[key])
    return {"output": name, "relative_l2": float(f"{errors[name]:.1e}")}


def _relative_l2(actual: np.ndarray, expected: np.ndarray) -> float:
    """Over the elements that are finite on both sides, and of any type; an output of zeros is held to the absolute error."""
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(e)
    return float(np.linalg.norm((a - e)[both]) / (np.linalg.norm(e[both]) or 1.0))
