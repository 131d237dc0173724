"""Quantization of float graphs: what is observed, how ranges are chosen, and where QuantizeLinear goes. Knows no devices."""

from redline.quant.cache import CalibrationCache
from redline.quant.calibrators import CALIBRATORS
from redline.quant.data import Samples, read_samples
from redline.quant.grids import FP8, INT8, UINT8, Grid
from redline.quant.insert import insert
from redline.quant.recipe import Layer, Recipe, of_images, recipe_of
from redline.quant.statistics import Statistics, Tensor

__all__ = [
    "CALIBRATORS", "FP8", "INT8", "UINT8", "CalibrationCache", "Grid", "Layer", "Recipe", "Samples", "Statistics", "Tensor",
    "insert", "of_images", "read_samples", "recipe_of",
]  # fmt: skip
