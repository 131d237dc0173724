"""OpenVINO on the CPU: latency hint, one stream, fixed shapes, and the precision set (its own choice may be BF16)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov

from redline.base.shapes import StaticShape

HINTS = {"fp32": "f32", "bf16": "bf16"}
PRECISIONS = tuple(HINTS)


class OpenVino:
    """One infer request, which shares its inputs' and outputs' memory with the caller."""

    def __init__(self, compiled: ov.CompiledModel, precision: str) -> None:
        self.request = compiled.create_infer_request()
        self.title = f"OpenVINO {ov.__version__.split('-')[0]} {precision.upper()}"
        self.outputs = [output.get_any_name() for output in compiled.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return dict(zip(self.outputs, found.to_tuple(), strict=True))


def open_model(model: Path, shapes: Mapping[str, StaticShape], num_threads: int, precision: str) -> OpenVino:
    core = ov.Core()
    read = core.read_model(str(model))
    if shapes:
        read.reshape({name: list(shape) for name, shape in shapes.items()})
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }
    return OpenVino(core.compile_model(read, "CPU", config), precision)
