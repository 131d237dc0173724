"""Runs engines: loading, execution contexts, the thread pool. Imports neither onnx nor a compiler."""

from redline.runtime.context import Context
from redline.runtime.cuda.engine import CudaEngine
from redline.runtime.engine import AnyEngine, Engine, load, load_async
from redline.runtime.ragged import run_ragged

__all__ = ["AnyEngine", "Context", "CudaEngine", "Engine", "load", "load_async", "run_ragged"]
