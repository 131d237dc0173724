"""A loaded CUDA engine: the counterpart of runtime.Engine, with the same calls."""

import os
from collections.abc import Mapping
from typing import Any

from redline.engine import EngineFile, Header, open_engine
from redline.runtime.callable import CallableEngine
from redline.runtime.cuda.context import CudaContext, Results
from redline.runtime.cuda.loaded import CudaLoaded
from redline.runtime.ports import check_names


class CudaEngine(CallableEngine[CudaLoaded, Results]):
    """Call it with arrays by the names of its inputs, from any number of threads; each gets a context of its own."""

    num_threads = 1

    def __init__(self, loaded: CudaLoaded) -> None:
        super().__init__(loaded)
        self._idle.append(CudaContext(loaded))

    def context(self, num_threads: int = 0) -> CudaContext:
        """A context with memory and a stream of its own; ``num_threads`` is for CPU engines."""
        return CudaContext(self._open())

    def header_at(self, inputs: Mapping[str, Any]) -> Header:
        """The plan that a call with ``inputs`` runs."""
        loaded = self._open()
        check_names(inputs, loaded.inputs, "input")
        return loaded.plans[loaded.shapes.bind(inputs, None, {}).plan].header


def load(path: str | os.PathLike[str], device: int = 0, verify: str = "full") -> CudaEngine:
    """Loads a CUDA engine onto GPU number ``device``. Raises EngineError where the GPU, the driver or the file does not fit."""
    return of_file(open_engine(path, verify), device, is_verified=True)


def of_file(file: EngineFile, device: int, is_verified: bool) -> CudaEngine:
    """The engine in ``file``, whose weights are compared with their hashes first unless they have been."""
    if not is_verified:
        file.verify("weights")
    return CudaEngine(CudaLoaded(file, device))
