"""PyTorch with torch.compile (inductor) as a peer: the zoo's own modules, on the CPU, in float32 or under bfloat16 autocast.

The weights are those of a fresh module, not of the exported file: they have no influence on the time.
"""

from collections.abc import Mapping

import numpy as np
import torch
import zoo_export

from redline.base.errors import RedlineError
from redline.base.shapes import StaticShape

PRECISIONS = ("fp32", "bf16")


class TorchCompile:
    """A compiled module; image models are channels last, as PyTorch recommends for its convolutions."""

    def __init__(self, name: str, precision: str) -> None:
        self.title = f"torch.compile {torch.__version__.split('+')[0]} {precision.upper()}"
        self.is_image = name not in ("bert_base", "minilm")
        module = zoo_export.BUILDERS[name]()
        module = module.to(memory_format=torch.channels_last) if self.is_image else module
        if precision == "bf16":
            module = module.to(torch.bfloat16)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.module = torch.compile(module.eval(), mode="max-autotune", dynamic=False)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
        with torch.inference_mode():
            if self.is_image:
                (image,) = tensors.values()
                found = self.module(image.to(self.dtype, memory_format=torch.channels_last))
            else:
                found = self.module(**tensors)
        parts = found if isinstance(found, tuple) else (found,)
        return {str(i): part.float().numpy() for i, part in enumerate(parts)}


def open_model(name: str, shapes: Mapping[str, StaticShape], num_threads: int, precision: str) -> TorchCompile:
    """The zoo's model ``name``; raises RedlineError for one that is no torch module."""
    if name not in zoo_export.BUILDERS:
        raise RedlineError("--peers", f"{name!r} is no torch module", "", "leave torch out of --peers")
    torch.set_num_threads(num_threads)
    return TorchCompile(name, precision)
