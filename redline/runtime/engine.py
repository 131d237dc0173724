"""``redline.load``: an engine file becomes a function from arrays to arrays."""

import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from redline.base import cpu
from redline.base.errors import EngineError
from redline.engine import read_header
from redline.runtime.callable import CallableEngine
from redline.runtime.calls import Calls, Pending
from redline.runtime.context import Arrays, Context
from redline.runtime.cuda.engine import load as load_cuda
from redline.runtime.loaded import Loaded


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
        self._calls = Calls(cpu.num_threads())
        weakref.finalize(self, self._calls.close).atexit = False

    def run_async(self, inputs: Mapping[str, Any], out: Mapping[str, np.ndarray] | None = None) -> Pending[Arrays]:
        """``run`` on a thread of the engine: a ``concurrent.futures.Future`` that can be awaited too.

        ``cancel()`` takes back a call that has not begun. The arrays must stay as they are until the call is done.
        """
        self._open()
        return self._calls.submit(lambda: self.run(inputs, out))

    def context(self, num_threads: int = 0) -> Context:
        """A context with an arena of its own; ``num_threads`` 0: as many as the engine."""
        return Context(self._open(), num_threads or self.num_threads)

    def close(self) -> None:
        """Frees everything that no running call or open context needs, and cancels calls that have not begun.

        A second call does nothing.
        """
        self._loaded = None
        self._calls.close()
        super().close()


def load(
    path: str | os.PathLike[str], num_threads: int = 0, verify: str = "lazy", preload: bool = False, device: int = 0
) -> Engine:
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
    if read_header(path).stamp.target.startswith("cuda"):
        return cast(Engine, load_cuda(path, device, "full"))  # which has the same calls
    return Engine(Loaded(path, verify, preload), num_threads or cpu.num_threads())


def load_async(
    path: str | os.PathLike[str], num_threads: int = 0, verify: str = "lazy", preload: bool = True
) -> Pending[Engine]:
    """``load`` on a thread of its own: a future that can be awaited too. By default everything is in memory when it is done."""
    pending: Pending[Engine] = Pending()
    work = lambda: load(path, num_threads, verify, preload)  # noqa: E731
    threading.Thread(target=pending.fulfil, args=(work,), name="redline-load", daemon=True).start()
    return pending
