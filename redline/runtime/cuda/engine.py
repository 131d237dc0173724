"""A loaded CUDA engine: the counterpart of runtime.Engine, with the same calls."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from redline.base.errors import EngineError
from redline.runtime.cuda.context import CudaContext, Results
from redline.runtime.cuda.loaded import CudaLoaded
from redline.runtime.ports import Port


class CudaEngine:
    """Call it with arrays by the names of its inputs, from any number of threads; each gets a context of its own."""

    num_threads = 1

    def __init__(self, loaded: CudaLoaded) -> None:
        self._loaded: CudaLoaded | None = loaded
        self.path, self.header = loaded.path, loaded.header
        self.inputs: tuple[Port, ...] = loaded.inputs
        self.outputs: tuple[Port, ...] = loaded.outputs
        self._idle = [CudaContext(loaded)]

    @property
    def report(self) -> Mapping[str, Any]:
        """What the builder wrote about the build."""
        return self.header.report

    def __call__(self, **inputs: Any) -> Results:
        return self.run(inputs)

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> Results:
        """The outputs by name; see ``CudaContext.run``."""
        context = self._take()
        try:
            return context.run(inputs, out)
        finally:
            self._give_back(context)

    def profile(self, inputs: Mapping[str, Any], repeats: int = 10) -> np.ndarray:
        """The seconds of each kernel of ``header.kernels``, shape [repeats, kernels]."""
        context = self._take()
        try:
            return context.profile(inputs, repeats)
        finally:
            self._give_back(context)

    def context(self, num_threads: int = 0) -> CudaContext:
        """A context with memory and a stream of its own; ``num_threads`` is for CPU engines."""
        return CudaContext(self._open())

    def close(self) -> None:
        """Frees everything that no running call or open context needs; a second call does nothing."""
        self._loaded = None
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> "CudaEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CudaEngine({self.path}: {', '.join(map(repr, self.inputs))} -> {', '.join(map(repr, self.outputs))})"

    def _open(self) -> CudaLoaded:
        if self._loaded is None:
            raise EngineError(self.path, "the engine is closed")
        return self._loaded

    def _take(self) -> CudaContext:
        try:
            return self._idle.pop()
        except IndexError:
            return self.context()

    def _give_back(self, context: CudaContext) -> None:
        self._idle.append(context)
        if self._loaded is None:
            self.close()


def load(path: str | os.PathLike[str], device: int = 0, verify: str = "full") -> CudaEngine:
    """Loads a CUDA engine onto GPU number ``device``. Raises EngineError where the GPU, the driver or the file does not fit."""
    return CudaEngine(CudaLoaded(path, verify, device))
