"""The noise that each layer adds in 8 bits: one engine runs every layer in float and, from the same inputs, in them."""

from collections.abc import Mapping, Sequence

import numpy as np

from redline import passes
from redline.builder.workshop import AnyShop
from redline.ir import Graph, Value
from redline.ops import make
from redline.ops.rules import ints
from redline.quant import Grid, Layer, Tensor
from redline.quant.insert import layer_alone

MOST_PROBED = 8  # samples


def noise_of(
    graph: Graph, layers: Sequence[Layer], tensors: Sequence[Tensor], feeds: Sequence[Mapping[str, np.ndarray]],
    shop: AnyShop, against: Sequence[Value] | None = None, grid: Grid | None = None,
) -> list[float]:  # fmt: skip
    """|y - y'| / |y| of every layer's output y; y' comes from the numbers that ``tensors`` give the layer's input.

    ``against``: values whose sizes stand below the line instead. ``grid``: of those numbers; the shop's integers by default.
    """
    grid = grid or shop.grids[0]
    outputs = []
    for i, (layer, tensor) in enumerate(zip(layers, tensors, strict=True)):
        y = layer.node.out
        error = make("Sub", y, layer_alone(layer, tensor, grid))
        axes = ints(range(len(y.shape)))
        for name, value in ((f"{i}e", error), (f"{i}y", y if against is None else against[i])):
            outputs.append((name, make("ReduceSum", make("Mul", value, value), axes, keepdims=0)))
    if not outputs:
        return []
    probe = passes.use_integers(Graph(graph.name, graph.inputs, tuple(outputs)), signed=grid.is_signed)
    engine = shop.make(probe, None, {}, opt_level=0).write(None)
    total: dict[str, float] = {}
    for feed in feeds[:MOST_PROBED]:
        for name, found in engine.run(feed).items():
            total[name] = total.get(name, 0.0) + float(found)
    return [(total[f"{i}e"] / max(total[f"{i}y"], 1e-30)) ** 0.5 for i in range(len(layers))]
