"""Which numbers the channels of a matrix product's input are divided by, so that outliers do not set everyone's step.

d = peak |x|^a / peak |w|^(1 - a), a channel of x against the row of weights that it meets (SmoothQuant, Xiao et al. 2023).
No share a is best for all layers: the builder tries several and keeps for each tensor the one that adds least noise.
"""

from collections.abc import Mapping

import numpy as np

from redline.ir import Value
from redline.quant.recipe import Layer, Recipe
from redline.quant.statistics import Statistics

SHARES = (0.5, 0.65, 0.8, 0.9)  # of the difficulty that moves to the weights
LEAST = 1e-5


def equalized(recipe: Recipe) -> list[Layer]:
    """The layers whose inputs may be divided: matrix products of many rows, which nothing but such products reads in bytes."""
    return [
        layer for layer in recipe.layers
        if layer.node.op == "MatMul" and layer.x not in recipe.groups and len(layer.x.shape) > 2
    ]  # fmt: skip


def divisors(recipe: Recipe, found: Mapping[Value, Statistics], share: float) -> dict[Value, np.ndarray]:
    """The divisor of each tensor that may have one."""
    weights: dict[Value, np.ndarray] = {}
    for layer in equalized(recipe):
        w = layer.node.inputs[1]
        assert w is not None and w.array is not None
        peak = np.abs(w.array.astype(np.float64)).max(1)
        weights[layer.x] = np.maximum(weights.get(layer.x, peak), peak)
    return {value: _divisor(found[value].peak, peak, share) for value, peak in weights.items()}


def _divisor(x: np.ndarray, w: np.ndarray, share: float) -> np.ndarray:
    raw = np.maximum(x, LEAST) ** share / np.maximum(w, LEAST) ** (1 - share)
    return np.where((x > LEAST) & (w > LEAST), np.maximum(raw, LEAST), 1.0)
