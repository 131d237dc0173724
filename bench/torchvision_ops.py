"""Import this before torchvision, or anything that imports it: makes that import work beside any build of torch.

A torchvision made for another torch (CUDA beside CPU, say) cannot load its compiled operators and then fails on import,
because it describes operators that are not there. Declaring them is enough: no model of the zoo calls one.
"""

import importlib.util
from pathlib import Path

import torch


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise SystemExit("the zoo needs torchvision: pip install --no-deps torchvision")
    try:
        torch.ops.load_library(Path(spec.origin).parent / "_C.so")
    except OSError:
        return False
    return True


if not _compiled_operators_load():
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
