"""The gate of the precision ``best``: layers stay in 8 bits where they are faster and the model stays within its drop.

1. A probe engine runs every layer in float and, from the same float inputs, on every grid that the device multiplies
   (integers; on some GPUs floats of 8 bits): the noise that each layer adds.
2. A float engine and one for each grid are timed kernel by kernel: the time that each layer gains.
3. The fastest plan has one grid, or for each layer its fastest. Layers that gain nothing stay in float, unless that makes the
   whole slower, as an island in float does; of the others the noisiest go back to integers, then to float, as few as the
   gate asks for (found by bisection: gate_plans.py).
4. The plan that comes out is timed against the float plan. The slower of the two is never returned.

The drop is that of a metric: the caller's, or the accuracy where the samples have labels, or the share of samples that
keep their largest output.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.base.errors import BuildError
from redline.builder.gate_plans import Plan, Row, Try, quickest, within
from redline.builder.noise import noise_of
from redline.builder.workshop import AnyShop, P, Runnable, Shop
from redline.ir import Graph
from redline.quant import Grid, Layer, Samples, Tensor, insert, recipe_of

Outputs = Mapping[str, np.ndarray]
Metric = Callable[[Sequence[Outputs]], float]
MOST_EVALUATED = 256
TIMED_RUNS = 15
PRODUCTS = frozenset({"banded", "conv", "depthwise", "expanded", "matmul"})


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


def check_cosine(cosine: float) -> None:
    if not 0 <= cosine <= 1:
        raise BuildError("--min-cosine", f"{cosine:g} is no cosine to ask for", "allowed: 0 to 1, as in 0.99")


def best(
    graph: Graph, tensors: Mapping[str, Tensor], samples: Samples, limits: Limits, summary: Mapping[str, Any], shop: Shop[P]
) -> P:
    """The fastest plan within ``limits``; its report holds the table. Raises BuildError where no layer passes the gate."""
    trial = _Trial(graph, tensors, samples, limits, shop)
    rows = trial.rows()
    fast = quickest(rows, shop.grids, trial.plan_seconds)
    plan = within(rows, fast, trial.passes)
    if plan is None:
        raise BuildError("gate", *trial.complaint(rows, fast))
    table = [row.entry(plan.get(row.name)) for row in rows]
    chosen = shop.make_integers(trial.quantized(plan), {**summary, "layers": table, "gate": trial.measured(plan)})
    engine = chosen.write(None)
    if trial.seconds(engine) < trial.seconds(trial.float_engine):
        return chosen
    note = {**trial.measured(plan), "note": "the 8-bit plan was slower than the float one, which was kept"}
    return shop.make(graph, None, {**summary, "layers": [row.entry(None) for row in rows], "gate": note})


class _Trial:
    """Engines of one graph with some layers in 8 bits, and what they answer."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor], samples: Samples, limits: Limits, shop: AnyShop) -> None:
        self.graph, self.tensors, self.limits, self.shop = graph, tensors, limits, shop
        self.left_out = frozenset(shop.left_out(graph))
        self.recipe = recipe_of(graph, self.left_out)
        self.feeds, self.labels = samples.feeds[:MOST_EVALUATED], samples.labels
        self.float_engine = shop.make(graph, None, {}).write(None)
        self.expected = [self.float_engine.run(feed) for feed in self.feeds]
        self.known: dict[frozenset[tuple[str, Grid]], tuple[float, float]] = {}

    def quantized(self, plan: Plan) -> Graph:
        without = [layer.name for layer in self.recipe.layers if layer.name not in plan]
        recipe = recipe_of(self.graph, {*without, *self.left_out}, self.tensors)
        return insert(self.graph, recipe, self.tensors, grid=self.shop.grids[0], others=plan)

    def rows(self) -> list[Row]:
        layers = self.recipe.layers
        given = [self.tensors[self.recipe.tensors[layer.x]] for layer in layers]
        floats = _layer_seconds(self.float_engine, self.feeds[0], layers)
        tries: list[list[Try]] = [[] for _ in layers]
        for grid in self.shop.grids:
            noise = noise_of(self.graph, layers, given, self.feeds, self.shop, grid=grid)
            times = _layer_seconds(self._engine({layer.name: grid for layer in layers}), self.feeds[0], layers)
            for layer, added, found in zip(layers, noise, tries, strict=True):
                found.append(Try(grid, added, times.get(layer.name)))
        return [Row(layer.name, floats.get(layer.name), tuple(f)) for layer, f in zip(layers, tries, strict=True)]

    def _engine(self, plan: Plan) -> Runnable:
        return self.shop.make_integers(self.quantized(plan), {}).write(None)

    def plan_seconds(self, plan: Plan) -> float:
        return self.seconds(self._engine(plan))

    def passes(self, plan: Plan) -> bool:
        self.shop.report("gate", len(self.known), len(self.known) + 1)
        return self.limits.passes(*self.evaluate(plan))

    def evaluate(self, plan: Plan) -> tuple[float, float]:
        """(drop, mean cosine) of a plan."""
        key = frozenset(plan.items())
        if key not in self.known:
            engine = self.shop.make_integers(self.quantized(plan), {}, opt_level=0).write(None)
            self.known[key] = self._compare([engine.run(feed) for feed in self.feeds])
        return self.known[key]

    def measured(self, plan: Plan) -> dict[str, Any]:
        drop, cosine = self.evaluate(plan)
        return {"limits": str(self.limits), "drop": round(drop, 6), "cosine": round(cosine, 6)}

    def complaint(self, rows: Sequence[Row], plan: Plan) -> tuple[str, str, str]:
        """What was seen, what is allowed and what to do, where even the quietest layer alone is too noisy."""
        quietest = min((row for row in rows if row.name in plan), key=lambda row: row.tries[0].noise)
        drop, cosine = self.evaluate({quietest.name: quietest.tries[0].grid})
        seen = f"{self.limits} cannot be met: with one layer in 8 bits the drop is {drop:.3%}, the cosine {cosine:.5f}"
        return seen, "", "allow more, give better calibration data, or build with --precision fp32"

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

    def seconds(self, engine: Runnable) -> float:
        feed, times = self.feeds[0], []
        for _ in range(TIMED_RUNS):
            started = time.perf_counter()
            engine.run(feed)
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def _layer_seconds(engine: Runnable, feed: Mapping[str, np.ndarray], layers: Sequence[Layer]) -> dict[str, float]:
    """The seconds of each layer's own kernel, where one kernel names it; of a kernel of two layers half for each."""
    engine.run(feed)
    seconds = np.median(engine.profile(feed, TIMED_RUNS), axis=0)
    names = {layer.node.name or layer.name: layer.name for layer in layers}
    found: dict[str, float] = {}
    for kernel, time_s in zip(engine.header.kernels, seconds, strict=True):
        named = [names[name] for name in kernel.nodes if name in names] if kernel.family in PRODUCTS else []
        for name in named:
            found.setdefault(name, float(time_s) / len(named))
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
