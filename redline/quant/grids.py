"""The grids of numbers that quantized tensors lie on: bytes in even steps, or floats of 8 bits.

A grid says how activations and weights are stored, and what scale a range asks for. All else of quantization is the same.
"""

from dataclasses import dataclass

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.ops.quantize import bounds
from redline.quant.statistics import Tensor

LEVELS = 255
MOST_SIGNED = 127
TINY = 1e-12


@dataclass(frozen=True)
class Grid:
    """``name`` is that of the precision. ``most``: the size of weights, and of activations around 0, that the largest gets."""

    name: str
    activations: DType
    weights: DType
    most: float

    @property
    def is_signed(self) -> bool:
        """Whether activations lie around 0, without a zero point."""
        return self.activations.kind != "u"

    def steps(self, tensor: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Scale and zero point of activations for a range that holds 0."""
        low, high = min(tensor.low, 0.0), max(tensor.high, 0.0)
        if self.is_signed:
            largest = tensor.largest if self.activations.is_float else max(-low, high)
            return np.asarray(np.float32(max(largest, TINY) / self.most)), np.zeros((), self.activations.numpy)
        scale = np.float32(max(high - low, TINY) / LEVELS)
        return np.asarray(scale), np.asarray(np.clip(np.rint(-low / float(scale)), 0, LEVELS), np.uint8)

    def quantized_weights(self, array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Weights on the grid and their scales along ``axis``."""
        others = tuple(i for i in range(array.ndim) if i != axis)
        scale = np.maximum(np.abs(array).max(others), TINY).astype(np.float32) / np.float32(self.most)
        shape = [1] * array.ndim
        shape[axis] = -1
        placed = array / scale.reshape(shape)
        placed = placed if self.weights.is_float else np.rint(placed)
        return np.clip(placed, -self.most, self.most).astype(self.weights.numpy), scale


UINT8 = Grid("int8", dtypes.uint8, dtypes.int8, MOST_SIGNED)  # activations with a zero point, as processors multiply them
INT8 = Grid("int8", dtypes.int8, dtypes.int8, MOST_SIGNED)  # activations around 0, as tensor cores do
FP8 = Grid("fp8", dtypes.float8_e4m3fn, dtypes.float8_e4m3fn, float(bounds(dtypes.float8_e4m3fn)[1]))
