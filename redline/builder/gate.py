"""The gate of the precision ``best``: layers stay in 8 bits where they are faster and the model stays within its drop.

1. A probe engine runs every layer in float and, from the same float inputs, in integers: the noise that each layer adds.
2. A float and an all-integer engine are timed kernel by kernel: the time that each layer gains.
3. Layers that gain nothing stay in float, unless that makes the whole slower, as an island in float does; of the others
   the noisiest, as few as the gate asks for (found by bisection).
4. The plan that comes out is timed against the float plan. The slower of the two is never returned.

The drop is that of a metric: the caller's, or the accuracy where the samples have labels, or the share of samples that
keep their largest output.
"""

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.base.errors import BuildError
from redline.builder.noise import noise_of
from redline.builder.workshop import AnyShop, P, Runnable, Shop
from redline.ir import Graph
from redline.quant import Layer, Samples, Tensor, insert, recipe_of

Outputs = Mapping[str, np.ndarray]
Metric = Callable[[Sequence[Outputs]], float]
MOST_EVALUATED = 256
TIMED_RUNS = 15
PRODUCTS = frozenset({"conv", "depthwise", "matmul"})


@dataclass(frozen=True)
class Limits:
    """What the gate allows. ``metric`` of all samples' outputs, larger being better."""

    max_drop: float | None = None
    min_cosine: float | None = None
    metric: Metric | None = None

    def passes(self, drop: float, cosine: float) -> bool:
        return (self.max_drop is None or drop <= self.max_drop) and (self.min_cosine is None or cosine >= self.min_cosine)

    def __str__(self) -> str:
        parts = [] if self.max_drop is None else [f"--max-drop {self.max_drop:.3%}"]
        return " ".join([*parts, *([] if self.min_cosine is None else [f"--min-cosine {self.min_cosine:g}"])])


def check_drop(drop: float) -> None:
    if not 0 <= drop < 1:
        raise BuildError("--max-drop", f"{drop:g} is no drop", "allowed: 0% up to 100%, as in 0.5%")


@dataclass(frozen=True)
class Row:
    """A layer in the table: relative noise of its output in 8 bits, and its kernels' seconds; None where not told apart."""

    name: str
    noise: float
    float_s: float | None
    int8_s: float | None

    @property
    def gains(self) -> bool:
        return self.float_s is None or self.int8_s is None or self.int8_s < self.float_s

    def entry(self, precision: str) -> dict[str, Any]:
        micro = lambda s: None if s is None else round(s * 1e6, 1)  # noqa: E731
        return {
            "layer": self.name, "precision": precision, "noise": float(f"{self.noise:.3g}"), "fp32_us": micro(self.float_s),
            "int8_us": micro(self.int8_s),
        }  # fmt: skip


def best(
    graph: Graph, tensors: Mapping[str, Tensor], samples: Samples, limits: Limits, summary: Mapping[str, Any], shop: Shop[P]
) -> P:
    """The fastest plan within ``limits``; its report holds the table. Raises BuildError where no layer passes the gate."""
    trial = _Trial(graph, tensors, samples, limits, shop)
    rows = trial.rows()
    slow = trial.slow([row.name for row in rows if not row.gains])
    noisy = sorted((row for row in rows if row.name not in slow), key=lambda row: -row.noise)
    kept = trial.fewest([row.name for row in noisy], slow)
    without = {*slow, *(row.name for row in noisy[:kept])}
    table = [row.entry("fp32" if row.name in without else "int8") for row in rows]
    chosen = shop.make_integers(trial.quantized(without), {**summary, "layers": table, "gate": trial.measured(without)})
    engine = chosen.write(None)
    if trial.seconds(engine) < trial.seconds(trial.float_engine):
        return chosen
    note = {**trial.measured(without), "note": "the 8-bit plan was slower than the float one, which was kept"}
    return shop.make(graph, None, {**summary, "layers": [row.entry("fp32") for row in rows], "gate": note})


class _Trial:
    """Engines of one graph with some layers in 8 bits, and what they answer."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor], samples: Samples, limits: Limits, shop: AnyShop) -> None:
        self.graph, self.tensors, self.limits, self.shop = graph, tensors, limits, shop
        self.left_out = frozenset(shop.left_out(graph))
        self.feeds, self.labels = samples.feeds[:MOST_EVALUATED], samples.labels
        self.float_engine = shop.make(graph, None, {}).write(None)
        self.expected = [self.float_engine.run(feed) for feed in self.feeds]
        self.known: dict[frozenset[str], tuple[float, float]] = {}

    def quantized(self, without: Collection[str]) -> Graph:
        layers = recipe_of(self.graph, {*without, *self.left_out})
        return insert(self.graph, layers, self.tensors, grid=self.shop.grids[0])

    def rows(self) -> list[Row]:
        recipe = recipe_of(self.graph, self.left_out)
        given = [self.tensors[recipe.tensors[layer.x]] for layer in recipe.layers]
        noise = noise_of(self.graph, recipe.layers, given, self.feeds, self.shop)
        times = [_layer_seconds(engine, self.feeds[0], recipe.layers) for engine in (
            self.float_engine, self.shop.make_integers(self.quantized(()), {}).write(None))]  # fmt: skip
        return [
            Row(layer.name, added, *(t.get(layer.name) for t in times))
            for layer, added in zip(recipe.layers, noise, strict=True)
        ]

    def evaluate(self, without: Collection[str]) -> tuple[float, float]:
        """(drop, mean cosine) with these layers in float."""
        key = frozenset(without)
        if key not in self.known:
            engine = self.shop.make_integers(self.quantized(key), {}, opt_level=0).write(None)
            self.known[key] = self._compare([engine.run(feed) for feed in self.feeds])
        return self.known[key]

    def measured(self, without: Collection[str]) -> dict[str, Any]:
        drop, cosine = self.evaluate(without)
        return {"limits": str(self.limits), "drop": round(drop, 6), "cosine": round(cosine, 6)}

    def _compare(self, found: Sequence[Outputs]) -> tuple[float, float]:
        cosines = [
            _cosine(e[name], f[name])
            for e, f in zip(self.expected, found, strict=True)
            for name in e
            if e[name].dtype.kind == "f"
        ]
        metric = self.limits.metric
        if metric is not None:
            drop = metric(self.expected) - metric(found)
        elif self.labels is not None:
            drop = _accuracy(self.expected, self.labels) - _accuracy(found, self.labels)
        else:
            drop = 1 - _accuracy(found, [_largest(outputs) for outputs in self.expected])
        return float(drop), float(np.mean(cosines)) if cosines else 1.0

    def slow(self, names: Sequence[str]) -> list[str]:
        """Those layers that gain nothing by themselves, if the plan is faster with them in float."""
        if not names:
            return []
        plans = [self.shop.make_integers(self.quantized(without), {}).write(None) for without in ((), names)]
        return list(names) if self.seconds(plans[1]) < self.seconds(plans[0]) else []

    def fewest(self, noisy: Sequence[str], slow: Sequence[str]) -> int:
        """How many of the noisiest layers must stay in float."""
        low, high = 0, len(noisy)
        if not noisy:
            return 0
        while low < high:
            middle = (low + high) // 2
            self.shop.report("gate", len(self.known), len(self.known) + 1)
            if self.limits.passes(*self.evaluate({*slow, *noisy[:middle]})):
                high = middle
            else:
                low = middle + 1
        if low == len(noisy):
            drop, cosine = self.evaluate({*slow, *noisy[: len(noisy) - 1]})
            seen = f"{self.limits} cannot be met: with one layer in 8 bits the drop is {drop:.3%}, the cosine {cosine:.5f}"
            raise BuildError("gate", seen, "", "allow more, give better calibration data, or build with --precision fp32")
        return low

    def seconds(self, engine: Runnable) -> float:
        feed, times = self.feeds[0], []
        for _ in range(TIMED_RUNS):
            started = time.perf_counter()
            engine.run(feed)
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def _layer_seconds(engine: Runnable, feed: Mapping[str, np.ndarray], layers: Sequence[Layer]) -> dict[str, float]:
    """The seconds of each layer's own kernel, where one kernel names it."""
    engine.run(feed)
    seconds = np.median(engine.profile(feed, TIMED_RUNS), axis=0)
    names = {layer.node.name or layer.name: layer.name for layer in layers}
    found: dict[str, float] = {}
    for kernel, time_s in zip(engine.header.kernels, seconds, strict=True):
        named = [names[name] for name in kernel.nodes if name in names] if kernel.family in PRODUCTS else []
        if named:
            found.setdefault(named[0], float(time_s))
    return found


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else float(np.array_equal(a, b))


def _largest(outputs: Outputs) -> np.ndarray:
    return next(iter(outputs.values())).argmax(-1).reshape(-1)


def _accuracy(found: Sequence[Outputs], labels: Sequence[Any] | np.ndarray) -> float:
    """The share of the first output's rows whose largest element stands at the label."""
    hits = [
        np.asarray(_largest(outputs) == np.asarray(label).reshape(-1)) for outputs, label in zip(found, labels, strict=False)
    ]
    return float(np.mean(np.concatenate(hits)))
