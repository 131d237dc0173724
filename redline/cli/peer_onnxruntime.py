"""ONNX Runtime on the CPU: all graph optimisations, open dimensions fixed, spinning threads left on (its default)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from redline.base.shapes import StaticShape

PRECISIONS = ("fp32",)
PROVIDERS = ["CPUExecutionProvider"]
ERRORS_ONLY = 3


class OnnxRuntime:
    """One session."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        self.title = f"ONNX Runtime {ort.__version__} FP32"
        self.outputs = [entry.name for entry in session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(inputs)), strict=True))


def open_model(model: Path, shapes: Mapping[str, StaticShape], num_threads: int, precision: str) -> OnnxRuntime:
    """The model with ``shapes`` fixed, for which it is opened twice: the first time only to learn the dimensions' names."""
    plain = ort.SessionOptions()
    plain.log_severity_level = ERRORS_ONLY
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    described = ort.InferenceSession(str(model), plain, providers=PROVIDERS).get_inputs()

    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    extents: dict[str, set[int]] = {}
    for entry in described:
        for dim, extent in zip(entry.shape, shapes.get(entry.name, ()), strict=False):
            if isinstance(dim, str):
                extents.setdefault(dim, set()).add(extent)
    for dim, found in extents.items():
        if len(found) == 1:  # some exporters call all dimensions that they do not know by one sign
            options.add_free_dimension_override_by_name(dim, *found)
    return OnnxRuntime(ort.InferenceSession(str(model), options, providers=PROVIDERS))
