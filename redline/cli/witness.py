"""Two independent readers of an ONNX model, to hold an engine's answers against: ONNX Runtime and the numpy interpreter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redline.base.errors import ModelError
from redline.base.shapes import StaticShape
from redline.cli import extras

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Witness:
    """``run`` gives the model's outputs by name for an array for each of ``inputs``."""

    name: str
    inputs: tuple[str, ...]
    run: Callable[[Mapping[str, np.ndarray]], Arrays]


def onnx_runtime(model: Path) -> Witness:
    """ONNX Runtime on the model as it is written: its own graph optimisations are off. Raises ModelError if it refuses."""
    runtime = extras.load("onnxruntime", "compare")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but this
        raise ModelError(str(model), f"ONNX Runtime refuses it: {error}", "", "compare with --reference") from error
    outputs = [item.name for item in session.get_outputs()]

    def run(arrays: Mapping[str, np.ndarray]) -> Arrays:
        return dict(zip(outputs, session.run(outputs, dict(arrays)), strict=True))

    return Witness("ONNX Runtime", tuple(item.name for item in session.get_inputs()), run)


def interpreter(model: Path, shapes: Mapping[str, StaticShape]) -> Witness:
    """The reference interpreter on the model's graph as read, at these input shapes: numpy, no pass, no kernel."""
    graph = extras.load("redline.frontend", "compare").load(model, shapes=shapes)
    evaluate = extras.load("redline.ops.interpreter", "compare").run
    return Witness("the interpreter", tuple(node.name for node in graph.inputs), lambda arrays: evaluate(graph, arrays))
