"""``redline.load``: an engine file becomes a function from arrays to arrays."""

import os
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from redline.base import cpu
from redline.base.errors import EngineError
from redline.engine import read_header
from redline.runtime.context import Arrays, Context
from redline.runtime.cuda.engine import load as load_cuda
from redline.runtime.loaded import Loaded
from redline.runtime.ports import Port


class Engine:
    """A loaded engine: call it with arrays by the names of its inputs, from any number of threads.

    Each thread that calls at the same moment gets a context (an arena) of its own, kept for later calls. ``context()`` gives
    one to manage yourself.
    """

    def __init__(self, loaded: Loaded, num_threads: int) -> None:
        self._loaded: Loaded | None = loaded
        self.path, self.header, self.num_threads = loaded.path, loaded.header, num_threads
        self.inputs: tuple[Port, ...] = loaded.inputs
        self.outputs: tuple[Port, ...] = loaded.outputs
        self._idle = [Context(loaded, num_threads)]

    @property
    def report(self) -> Mapping[str, Any]:
        """What the builder wrote about the build."""
        return self.header.report

    def __call__(self, **inputs: Any) -> Arrays:
        return self.run(inputs)

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, np.ndarray] | None = None) -> Arrays:
        """The outputs by name; see ``Context.run``. ``Engine(**inputs)`` is the short form."""
        context = self._take()
        try:
            return context.run(inputs, out)
        finally:
            self._give_back(context)

    def profile(self, inputs: Mapping[str, Any], repeats: int = 10) -> np.ndarray:
        """The seconds of each kernel of ``header.kernels``, shape [repeats, kernels]; see ``Context.profile``."""
        context = self._take()
        try:
            return context.profile(inputs, repeats)
        finally:
            self._give_back(context)

    def context(self, num_threads: int = 0) -> Context:
        """A context with an arena of its own; ``num_threads`` 0: as many as the engine."""
        return Context(self._open(), num_threads or self.num_threads)

    def close(self) -> None:
        """Frees everything that no running call or open context needs; a second call does nothing."""
        self._loaded = None
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Engine({self.path}: {', '.join(map(repr, self.inputs))} -> {', '.join(map(repr, self.outputs))})"

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise EngineError(self.path, "the engine is closed")
        return self._loaded

    def _take(self) -> Context:
        """An idle context or a new one. Lists pop and append atomically, so no lock can outlive a fork."""
        try:
            return self._idle.pop()
        except IndexError:
            return self.context()

    def _give_back(self, context: Context) -> None:
        self._idle.append(context)
        if self._loaded is None:
            self.close()


def load(path: str | os.PathLike[str], num_threads: int = 0, verify: str = "full", device: int = 0) -> Engine:
    """Loads an engine. ``num_threads`` 0: REDLINE_NUM_THREADS, else every core that this process may use.

    ``device``: which GPU, for a CUDA engine.

    ``verify="lazy"`` skips the check of the weights. An engine holds native code: load only what you would run.

    Raises EngineError for a file that is damaged, of a newer format, or made for a processor with more features than this one.
    """
    if num_threads < 0:
        raise EngineError("num_threads", f"{num_threads} is out of range", "allowed: 0 or more")
    if read_header(path).stamp.target.startswith("cuda"):
        return cast(Engine, load_cuda(path, device, verify))  # which has the same calls
    return Engine(Loaded(path, verify), num_threads or cpu.num_threads())
