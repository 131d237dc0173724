"""Calibration: a float engine that also gives every tensor to be quantized runs the samples, and observers look on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from redline.base.shapes import static
from redline.builder.noise import noise_of
from redline.builder.workshop import AnyShop
from redline.ir import INPUT, Graph, Value
from redline.quant import Recipe, Statistics, Tensor
from redline.quant.calibrators import calibrate
from redline.quant.data import Arrays, Port
from redline.quant.equalize import SHARES, divisors, equalized
from redline.quant.streams import MOST_NOISE, streams


def ports(graph: Graph) -> list[Port]:
    """The inputs of ``graph`` as calibration data must fit them."""
    return [Port(node.name, node.types[0].dtype.numpy, static(node.types[0].shape, node.name)) for node in graph.inputs]


def ranges(
    graph: Graph, recipe: Recipe, feeds: Sequence[Arrays], calibrator: str, equalize: bool, shop: AnyShop
) -> dict[str, Tensor]:
    """The range of every tensor of the recipe, by name, from ``feeds``."""
    found = {value: Statistics() for value in recipe.tensors}
    observe = _observer(graph, list(found), shop)
    for done, feed in enumerate(feeds):
        shop.report("observe", done, 2 * len(feeds))
        for value, array in observe(feed):
            found[value].look(array)
    by = _equalizing(graph, recipe, found, feeds, shop) if equalize else {}
    for value, statistics in found.items():
        statistics.divide(by.get(value))
    if calibrator != "minmax":
        for done, feed in enumerate(feeds, len(feeds)):
            shop.report("observe", done, 2 * len(feeds))
            for value, array in observe(feed):
                found[value].count(array)
    tensors = {**_tensors(recipe, found, calibrator), **_unclipped(recipe, found, by)}
    return tensors | (_widened(graph, recipe, tensors, feeds, shop) if equalize else {})


def _widened(
    graph: Graph, recipe: Recipe, tensors: Mapping[str, Tensor], feeds: Sequence[Arrays], shop: AnyShop
) -> dict[str, Tensor]:  # fmt: skip
    """The tensors whose products would leave too much noise in a residual stream."""
    into = streams(graph, recipe)
    names = [recipe.tensors[layer.x] for layer in into]
    noise = noise_of(graph, list(into), [tensors[name] for name in names], feeds, shop, list(into.values()))
    noisy = {name for name, share in zip(names, noise, strict=True) if share > MOST_NOISE}
    return {name: replace(tensors[name], wide=True) for name in noisy}


def _equalizing(
    graph: Graph, recipe: Recipe, found: Mapping[Value, Statistics], feeds: Sequence[Arrays], shop: AnyShop
) -> dict[Value, np.ndarray]:
    """For every tensor that may be divided, the divisor with which its layers add least noise; none where none helps."""
    layers = equalized(recipe)
    best: dict[Value, tuple[float, np.ndarray | None]] = {}
    for share in (None, *SHARES) if layers else ():
        by = {} if share is None else divisors(recipe, found, share)
        tensors = [_whole_range(found[layer.x], by.get(layer.x)) for layer in layers]
        total: dict[Value, float] = {}
        for layer, noise in zip(layers, noise_of(graph, layers, tensors, feeds, shop), strict=True):
            total[layer.x] = total.get(layer.x, 0.0) + noise
        for value, noise in total.items():
            if value not in best or noise < best[value][0]:
                best[value] = (noise, by.get(value))
    return {value: divisor for value, (_, divisor) in best.items() if divisor is not None}


def _unclipped(
    recipe: Recipe, found: Mapping[Value, Statistics], by: Mapping[Value, np.ndarray]
) -> dict[str, Tensor]:  # fmt: skip
    """Divided tensors keep their whole range: their outliers are gone, and what calibrators would cut off is missed."""
    return {recipe.tensors[value]: _whole_range(found[value], divisor) for value, divisor in by.items()}


def _whole_range(statistics: Statistics, divisor: np.ndarray | None) -> Tensor:
    by = 1.0 if divisor is None else divisor
    low, high = float((statistics.low / by).min(initial=0)), float((statistics.high / by).max(initial=0))
    return Tensor(min(low, 0.0), max(high, 0.0), statistics.mean, divisor, peak=max(-low, high, 0.0))


def _observer(graph: Graph, values: Sequence[Value], shop: AnyShop):  # type: ignore[no-untyped-def]
    """A function from inputs to (value, array) pairs."""
    computed = [value for value in values if value.op != INPUT]
    outputs = tuple((str(i), value) for i, value in enumerate(computed))
    engine = shop.make(Graph(graph.name, graph.inputs, outputs), None, {}, opt_level=0).write(None) if outputs else None

    def observe(feed: Arrays) -> Iterator[tuple[Value, np.ndarray]]:
        results = engine.run(feed) if engine is not None else {}
        for value in values:
            if value.op == INPUT:
                yield value, feed[value.node.name]
        for i, value in enumerate(computed):
            yield value, results[str(i)]

    return observe


def _tensors(recipe: Recipe, found: Mapping[Value, Statistics], calibrator: str) -> dict[str, Tensor]:
    ends = {value: calibrate(calibrator, statistics.counts, statistics.edges) for value, statistics in found.items()}
    whole: dict[Value, tuple[float, float, float]] = {}
    for value, group in recipe.groups.items():
        low, high, peak = whole.get(group, (0.0, 0.0, 0.0))
        whole[group] = min(low, ends[value][0]), max(high, ends[value][1]), max(peak, _peak(found[value]))
    tensors = {}
    for value, name in recipe.tensors.items():
        low, high, peak = whole[recipe.groups[value]] if value in recipe.groups else (*ends[value], _peak(found[value]))
        tensors[name] = Tensor(low, high, found[value].mean, found[value].divisor, peak=peak)
    return tensors


def _peak(statistics: Statistics) -> float:
    by = 1.0 if statistics.divisor is None else statistics.divisor
    return float((statistics.peak / by).max(initial=0))
