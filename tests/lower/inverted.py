"""An inverted residual block: few channels, many, a depthwise convolution of those, few again."""

import numpy as np
import onnx
from onnx import helper

from tests.quant import models

CHANNELS = 12


def expanded(
    high: float | None = 6.0, low: float | None = 0.0, pads: int = 1, also: str = "", batch: int = 2
) -> onnx.ModelProto:
    """x [batch, 4, 9, 7] -> Conv 1x1, Clip -> depthwise Conv 3x3, Clip -> Conv 1x1; ``also``: reads the first Clip."""
    rng, nodes = np.random.default_rng(0), []
    constants = {
        "w0": rng.standard_normal((CHANNELS, 4, 1, 1), np.float32),
        "b0": rng.standard_normal(CHANNELS, np.float32),
        "w1": rng.standard_normal((CHANNELS, 1, 3, 3), np.float32),
        "w2": rng.standard_normal((5, CHANNELS, 1, 1), np.float32) / 8,
    }
    ends = {"low": low, "high": high}
    constants |= {name: np.array(end, np.float32) for name, end in ends.items() if end is not None}
    given = [name if end is not None else "" for name, end in ends.items()]
    nodes.append(helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], "expand"))
    nodes.append(helper.make_node("Clip", ["c0", *given], ["r0"], "clip0"))
    nodes.append(helper.make_node("Conv", ["r0", "w1"], ["c1"], "taps", pads=[pads] * 4, group=CHANNELS))
    nodes.append(helper.make_node("Clip", ["c1", *given], ["r1"], "clip1"))
    nodes.append(helper.make_node("Conv", ["r1", "w2"], ["y"], "project"))
    if also:
        nodes.append(helper.make_node(also, ["r0"], ["z"], "also"))
    return models.model(nodes, {"x": (batch, 4, 9, 7)}, ["y", "z"] if also else ["y"], constants)
