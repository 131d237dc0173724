"""``redline.load``: an engine file becomes a function from arrays to arrays."""

import importlib
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from redline.base import cpu
from redline.base.errors import EngineError
from redline.engine import Header, open_engine
from redline.runtime.callable import CallableEngine
from redline.runtime.context import Arrays, Context
from redline.runtime.loaded import Loaded

if TYPE_CHECKING:
    from redline.runtime.calls import Pending
    from redline.runtime.cuda.engine import CudaEngine


class Engine(CallableEngine[Loaded, Arrays]):
    """A loaded engine: call it with arrays by the names of its inputs, from any number of threads.

    Each thread that calls at the same moment gets a context (an arena) of its own, kept for later calls. ``context()`` gives
    one to manage yourself. However many call, no more threads compute at once than the process has cores: a call that comes
    alone gets all of them, calls that come together get one each, in the order of their arrival.
    """

    def __init__(self, loaded: Loaded, num_threads: int) -> None:
        super().__init__(loaded)
        self.num_threads = num_threads
        self._idle.append(Context(loaded, num_threads))

    def context(self, num_threads: int = 0) -> Context:
        """A context with an arena of its own; ``num_threads`` 0: as many as the engine."""
        return Context(self._open(), num_threads or self.num_threads)

    def header_at(self, inputs: Mapping[str, Any]) -> Header:
        """The plan that a call with ``inputs`` runs; ``profile`` times its kernels."""
        loaded = self._open()
        return loaded.plan(loaded.shapes.bind(inputs, None, {}).plan).header


AnyEngine: TypeAlias = "Engine | CudaEngine"  # the latter is imported where there is one


def load(
    path: str | os.PathLike[str], num_threads: int = 0, verify: str = "lazy", preload: bool = False, device: int = 0
) -> AnyEngine:
    """Loads an engine. ``num_threads`` 0: REDLINE_NUM_THREADS, else every core that this process may use.

    Weights are mapped, not read: ``verify="lazy"`` checks each block before it is first used, on a thread that reads ahead
    in the order of the plan, so a large engine loads in milliseconds and its first answer does not wait for the whole file.
    ``preload=True`` returns when everything is checked and in memory; ``verify="full"`` compares every SHA-256 first.
    ``device``: which GPU, for a CUDA engine, whose weights are always checked and uploaded before this returns.
    An engine holds native code: load only what you would run.

    Raises EngineError for a file that is damaged, of a newer format, or made for a processor with more features than this one.
    """
    if num_threads < 0:
        raise EngineError("num_threads", f"{num_threads} is out of range", "allowed: 0 or more")
    file = open_engine(path, verify)
    if file.header.stamp.target.startswith("cuda"):
        cuda: CudaEngine = importlib.import_module("redline.runtime.cuda.engine").of_file(
            file, device, is_verified=verify == "full"
        )
        return cuda
    return Engine(Loaded(file, verify, preload), num_threads or cpu.num_threads())


def load_async(
    path: str | os.PathLike[str], num_threads: int = 0, verify: str = "lazy", preload: bool = True
) -> "Pending[AnyEngine]":
    """``load`` on a thread of its own: a future that can be awaited too. By default everything is in memory when it is done."""
    pending: Pending[AnyEngine] = importlib.import_module("redline.runtime.calls").Pending()
    work = lambda: load(path, num_threads, verify, preload)  # noqa: E731
    threading.Thread(target=pending.fulfil, args=(work,), name="redline-load", daemon=True).start()
    return pending
