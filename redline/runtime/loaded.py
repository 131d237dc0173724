"""An engine's parts in this process: mapped file, weights, loaded code, thread pool. Shared by the engine and its contexts."""

import os
import weakref

from redline.base import cpu
from redline.base.errors import EngineError
from redline.engine import EngineFile, Header, check_plan, open_engine
from redline.runtime.library import Library
from redline.runtime.pool import POOL
from redline.runtime.ports import Port
from redline.runtime.profile import Profile
from redline.runtime.weights import Weights


class Loaded:
    """Freed when neither an engine nor a context holds it any more."""

    def __init__(self, path: str | os.PathLike[str], verify: str, preload: bool) -> None:
        file = open_engine(path, verify)
        try:
            self.path, self.header = file.path, file.header
            check_plan(file.header, file.blob("weights").nbytes, file.path)
            check_processor(file.header, file.path)
            self.library = Library.from_bytes(file.blob("code").data, file.path)
        except BaseException:
            file.close()
            raise
        self.weights = Weights(file, file.header, self.library)
        weakref.finalize(self, _unload, file, self.library, self.weights).atexit = False
        _check_code(self.header, self.library, self.path)
        self.pool = POOL.pool(self.library, self.path)
        self._begin(verify, preload)
        self.profile = Profile(self.header)
        self.inputs = tuple(Port(io, self.header.dims) for io in self.header.inputs)
        self.outputs = tuple(Port(io, self.header.dims) for io in self.header.outputs)

    def _begin(self, verify: str, preload: bool) -> None:
        if preload:
            self.weights.preload()
        elif verify == "full":
            self.weights.trust()
        else:
            self.weights.start()


def check_processor(header: Header, where: str, features: frozenset[str] | None = None) -> None:
    """Raises EngineError when this processor lacks something that the engine's code uses."""
    missing = sorted(set(header.stamp.features) - (cpu.features() if features is None else features))
    if missing:
        lacks = f"this processor lacks {', '.join(missing)}"
        remedy = "rebuild here with redline build --target cpu"
        raise EngineError(where, f"it was built for {header.stamp.target}", lacks, remedy)


def _check_code(header: Header, library: Library, where: str) -> None:
    """The code was linked from the plan that the header describes."""
    steps, arena = library.num_steps, library.workspace_bytes(1)
    if steps != len(header.kernels) or arena < header.arena_bytes + header.scratch_bytes:
        raise EngineError(where, "its code and its header are not of the same build", "", "build the engine again")


def _unload(file: EngineFile, library: Library, weights: Weights) -> None:
    weights.stop()
    POOL.release(library)
    file.close()
