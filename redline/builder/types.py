"""Element types that not every device computes with."""

from redline.base.dtypes import GPU_ONLY, DType
from redline.lower import Program, Step


def only_on_gpus(program: Program) -> tuple[Step, DType] | None:
    """The first step that holds a value of a type that only GPUs compute with, be it in memory or within its expressions."""
    for step in program.steps:
        text = repr(step.problem)
        for dtype in GPU_ONLY:
            if dtype.name in text:
                return step, dtype
    return None
