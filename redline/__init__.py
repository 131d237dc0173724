"""Redline compiles ONNX models into engines and runs them.

    engine = redline.build("model.onnx")     # needs the build extra
    engine = redline.load("model.engine")    # needs numpy only
    outputs = engine(input=array)

The names are resolved at their first use, so that importing the package needs neither onnx nor a compiler.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["build", "load", "load_async", "run_ragged"]

_HOMES = {
    "build": "redline.builder", "load": "redline.runtime", "load_async": "redline.runtime", "run_ragged": "redline.runtime",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'redline' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
