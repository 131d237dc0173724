"""Runs engines: loading, execution contexts, the thread pool. Imports neither onnx nor a compiler.

What only GPUs need is imported at its first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from redline.runtime.context import Context
from redline.runtime.engine import AnyEngine, Engine, load, load_async
from redline.runtime.ragged import run_ragged

if TYPE_CHECKING:
    from redline.runtime.cuda.engine import CudaEngine

__all__ = ["AnyEngine", "Context", "CudaEngine", "Engine", "load", "load_async", "run_ragged"]


def __getattr__(name: str) -> Any:
    if name != "CudaEngine":
        raise AttributeError(f"module 'redline.runtime' has no attribute {name!r}")
    return importlib.import_module("redline.runtime.cuda.engine").CudaEngine
