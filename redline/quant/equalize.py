"""Which numbers the channels of a matrix product's input are divided by, so that outliers do not set everyone's step.

d = peak |x|^a / peak |w|^(1 - a), a channel of x against the row of weights that it meets (SmoothQuant, Xiao et al. 2023).
"""

from collections.abc import Mapping

import numpy as np

from redline.ir import Value
from redline.quant.recipe import Recipe
from redline.quant.statistics import Statistics

SHARE = 0.8  # of the difficulty that moves to the weights: measured best on a trained sentence encoder (0.5: 8 times the error)
LEAST = 1e-5


def divisors(recipe: Recipe, found: Mapping[Value, Statistics]) -> dict[Value, np.ndarray]:
    """The divisor of each tensor that matrix products of many rows alone read."""
    weights: dict[Value, np.ndarray] = {}
    for layer in recipe.layers:
        w = layer.node.inputs[1]
        if layer.node.op != "MatMul" or layer.x in recipe.groups or len(layer.x.shape) < 3 or w is None or w.array is None:
            continue
        peak = np.abs(w.array.astype(np.float64)).max(1)
        weights[layer.x] = np.maximum(weights.get(layer.x, peak), peak)
    return {value: _divisor(found[value].peak, peak) for value, peak in weights.items()}


def _divisor(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    raw = np.maximum(x, LEAST) ** SHARE / np.maximum(w, LEAST) ** (1 - SHARE)
    return np.where((x > LEAST) & (w > LEAST), np.maximum(raw, LEAST), 1.0)
