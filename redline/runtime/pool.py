"""The process's one thread pool, shared by all engines: it lives in the code of the engine that was loaded first."""

import threading

from redline.base import cpu
from redline.base.errors import EngineError
from redline.runtime.library import Library


class PoolOwner:
    """Makes the pool when the first engine is loaded; from then on that engine's code stays in the process.

    The pool bounds the threads that compute at once, in all engines together, to the cores that the process may use then.

    A forked child may use the pool too: its C side notices the fork and starts new threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool, self._library = 0, None  # type: int, Library | None

    def pool(self, library: Library, where: str) -> int:
        """The address of the pool; ``library`` is kept loaded if its code becomes the pool's."""
        with self._lock:
            if not self._pool:
                self._pool = library.pool_new(cpu.num_threads()) or 0
                self._library = library
            if not self._pool:
                raise EngineError(where, "there is no memory for a thread pool")
            return self._pool

    def release(self, library: Library) -> None:
        """Unloads the code of an engine that is closed, unless the pool needs it."""
        with self._lock:
            if library is not self._library:
                library.close()


POOL = PoolOwner()
