"""An engine's parts in this process: mapped file, weights, loaded code, thread pool, plans. Shared by engine and contexts."""

import weakref
from dataclasses import dataclass

from redline.base import cpu
from redline.base.errors import EngineError
from redline.engine import EngineFile, Header, check_plan, check_variants
from redline.runtime.dispatch import Dispatch
from redline.runtime.library import Library
from redline.runtime.pool import POOL
from redline.runtime.ports import Port
from redline.runtime.profile import Profile
from redline.runtime.weights import Blocks, Weights


@dataclass(frozen=True)
class Plan:
    """A plan whose steps have been read and checked. ``weights``: the blocks that it reads."""

    header: Header
    profile: Profile
    weights: Weights
    num_steps: int


class Loaded:
    """Freed when neither an engine nor a context holds it any more."""

    def __init__(self, file: EngineFile, verify: str, preload: bool) -> None:
        """``file``: open, and owned by this object from here on."""
        try:
            self.path, self.header = file.path, file.header
            check_plan(file.header, file.blob("weights").nbytes, file.path)
            check_variants(file.header, file.path)
            check_processor(file.header, file.path)
            self.library = Library.from_bytes(file.blob("code").data, file.path)
        except BaseException:
            file.close()
            raise
        self._file, self._blocks = file, Blocks(file, file.header, self.library)
        self._plans: dict[int, Plan] = {}
        weakref.finalize(self, _unload, file, self.library, self._plans).atexit = False
        if self.library.num_plans != 1 + len(self.header.variants):
            raise _of_another_build(self.path)
        self.pool = POOL.pool(self.library, self.path)
        if verify == "full":
            self._blocks.trust()
        self.shapes = Dispatch(self.header)
        self.inputs = tuple(Port(io, self.header.dims) for io in self.header.inputs)
        self.outputs = tuple(Port(io, self.header.dims) for io in self.header.outputs)
        for number in range(self.library.num_plans if preload or verify == "full" else 1):
            self.plan(number)
        if preload:
            for plan in self._plans.values():
                plan.weights.preload()

    @property
    def address(self) -> int:
        """Of the weights."""
        return self._blocks.address

    def plan(self, number: int) -> Plan:
        """A plan, read and checked at its first use; its weights are checked in the background from then on."""
        if number not in self._plans:
            header = self._file.plan(number)
            if number:
                check_plan(header, self._file.blob("weights").nbytes, self.path)
            _check_code(header, self.library, self.path)
            made = Plan(header, self.shapes.profiles[number], Weights(self._blocks, header), len(header.kernels))
            if self._plans.setdefault(number, made) is made:
                made.weights.start()
        return self._plans[number]


def check_processor(header: Header, where: str, features: frozenset[str] | None = None) -> None:
    """Raises EngineError when this processor lacks something that the engine's code uses."""
    missing = sorted(set(header.stamp.features) - (cpu.features() if features is None else features))
    if missing:
        lacks = f"this processor lacks {', '.join(missing)}"
        remedy = "rebuild here with redline build --target cpu"
        raise EngineError(where, f"it was built for {header.stamp.target}", lacks, remedy)


def _check_code(header: Header, library: Library, where: str) -> None:
    """The code was linked from the plan that the header describes."""
    steps, arena = library.num_steps[header.plan], library.workspace_bytes(header.plan, 1)
    if steps != len(header.kernels) or arena < header.arena_bytes + header.scratch_bytes:
        raise _of_another_build(where)


def _of_another_build(where: str) -> EngineError:
    return EngineError(where, "its code and its header are not of the same build", "", "build the engine again")


def _unload(file: EngineFile, library: Library, plans: dict[int, Plan]) -> None:
    for plan in plans.values():
        plan.weights.stop()
    POOL.release(library)
    file.close()
