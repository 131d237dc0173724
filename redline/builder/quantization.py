"""Lower precision as a build option: calibrate, insert, build; with a gate for the precision ``best``."""

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline import frontend, passes
from redline.base.dtypes import float32
from redline.base.errors import BuildError, closest
from redline.base.shapes import StaticShape
from redline.builder import calibration, gate
from redline.builder.gate import Metric
from redline.builder.workshop import AnyShop, P, Progress, Shop, Workshop
from redline.codegen.c import isa, toolchain
from redline.ir import Graph
from redline.passes.quantized import holds_quantization
from redline.quant import CALIBRATORS, CalibrationCache, Grid, Samples, insert, read_samples, recipe_of

PRECISIONS = ("int8", "fp8", "best")
DEFAULT_CALIBRATOR = "mse"


class CalibrationWarning(UserWarning):
    """The calibration data look unlike real inputs."""


@dataclass(frozen=True)
class Wish:
    """What the caller asked for."""

    precision: str
    calibrate: Any = None
    cache: str | os.PathLike[str] | None = None
    calibrator: str = DEFAULT_CALIBRATOR
    max_drop: float | None = None
    min_cosine: float | None = None
    metric: Metric | None = None

    @property
    def has_gate(self) -> bool:
        return self.max_drop is not None or self.min_cosine is not None

    def check(self) -> None:
        """Raises BuildError for options that do not go together."""
        if self.calibrator not in CALIBRATORS:
            raise BuildError(
                "--calibrator", f"there is no calibrator {self.calibrator!r}", closest(self.calibrator, CALIBRATORS)
            )
        if self.precision not in PRECISIONS:
            if self.calibrate is not None or self.cache is not None or self.has_gate:
                seen = f"calibration or a gate with the precision {self.precision}"
                raise BuildError("--calibrate", seen, f"they belong to {', '.join(PRECISIONS)}", "add --precision int8")
            return
        if self.calibrate is None and (self.cache is None or not Path(self.cache).exists()):
            remedy = "give --calibrate DATA (an .npz or a folder of .npy), or the --calibration-cache of an earlier build"
            raise BuildError("--precision", f"{self.precision} without calibration data", "", remedy)
        if self.precision == "best" and not self.has_gate:
            raise BuildError("--precision", "best without a gate", "", "give --max-drop 0.5% or --min-cosine 0.99")
        if self.precision == "best" and self.calibrate is None:
            raise BuildError("--precision", "best without samples", "the gate measures on them", "give --calibrate DATA")
        if self.max_drop is not None and self.metric is None:
            gate.check_drop(self.max_drop)
        if self.min_cosine is not None:
            gate.check_cosine(self.min_cosine)


def make(
    model: Any, graph: Graph, summary: Mapping[str, Any], shop: Shop[P], wish: Wish, observing: Callable[[], AnyShop]
) -> P:
    """The engine of ``graph``, a float graph, in the precision wished for; ranges are measured by engines of ``observing``."""
    if holds_quantization(graph):
        raise BuildError("--precision", "the model is quantized already", "", "build it without --precision")
    grid = None if wish.precision == "best" else _grid(wish.precision, shop)
    samples = None if wish.calibrate is None else samples_of(graph, wish.calibrate)
    cache = cache_of(model, graph, samples, wish.cache, wish.calibrator, observing)
    if grid is not None:
        recipe = recipe_of(graph, shop.left_out(graph), cache.tensors)
        whole = insert(graph, recipe, cache.tensors, wide=shop.narrow or float32, grid=grid)
        return shop.make_integers(whole, {**summary, "calibrator": cache.calibrator})
    assert samples is not None, "checked"
    limits = gate.Limits(wish.max_drop, wish.min_cosine, wish.metric)
    return gate.best(graph, cache.tensors, samples, limits, summary, shop)


def _grid(precision: str, shop: AnyShop) -> Grid:
    """The grid that a precision is named after; raises BuildError where the target does not multiply its numbers."""
    found = next((grid for grid in shop.grids if grid.name == precision), None)
    if found is None:
        seen = f"{precision} for this target, which has no such products"
        raise BuildError("--precision", seen, "GPUs from sm_89 on have them", "build with --target cuda:sm_90, or in int8")
    return found


def calibrate(
    model: Any, data: Any, path: str | os.PathLike[str], *, shapes: Mapping[str, StaticShape] | None = None,
    freeze: Mapping[str, frontend.Frozen] | None = None, calibrator: str = DEFAULT_CALIBRATOR, num_threads: int = 0,
    progress: Progress | None = None,
) -> CalibrationCache:  # fmt: skip
    """Measures the ranges of ``model`` on ``data`` and writes them to ``path``, over what may be there."""
    Wish("int8", data, None, calibrator).check()
    graph = passes.optimize(frontend.load(model, shapes=shapes or {}, freeze=freeze or {}))
    shop = Workshop(isa.target("cpu", num_threads), toolchain.find(), 0, None, progress or (lambda stage, done, total: None))
    cache = cache_of(model, graph, samples_of(graph, data), None, calibrator, lambda: shop)
    cache.save(Path(path))
    return cache


def samples_of(graph: Graph, data: Any) -> Samples:
    samples = read_samples(data, calibration.ports(graph))
    for sentence in samples.warnings:
        warnings.warn(sentence, CalibrationWarning, stacklevel=2)
    return samples


def cache_of(
    model: Any, graph: Graph, samples: Samples | None, path: str | os.PathLike[str] | None, calibrator: str,
    observing: Callable[[], AnyShop],
) -> CalibrationCache:  # fmt: skip
    """The ranges: from the file at ``path`` where it exists, else from the samples and into that file."""
    digest = model_hash(model)
    if path is not None and Path(path).exists():
        return CalibrationCache.open(Path(path), digest)
    assert samples is not None, "checked"
    recipe = recipe_of(graph)
    if not recipe.layers:
        raise BuildError(
            "--precision", "no convolution or matrix product with constant weights to quantize", "", "build in fp32"
        )
    tensors = calibration.ranges(graph, recipe, samples.feeds, calibrator, True, observing())
    cache = CalibrationCache(digest, calibrator, len(samples.feeds), tensors)
    if path is not None:
        cache.save(Path(path))
    return cache


def model_hash(model: Any) -> str:
    """SHA-256 of the model's file, bytes or serialised form."""
    if isinstance(model, str | os.PathLike):
        with open(model, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)).hexdigest()
