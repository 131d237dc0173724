"""What engines of every device have in common: contexts that calls take and give back, and that a closed engine frees."""

import importlib
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import numpy as np

from redline.base import cpu
from redline.base.errors import EngineError
from redline.engine import Header
from redline.runtime.ports import Port

if TYPE_CHECKING:
    from redline.runtime.calls import Calls, Pending

Answers = TypeVar("Answers")
Answers_co = TypeVar("Answers_co", covariant=True)


class Parts(Protocol):
    """A loaded engine's parts in this process."""

    path: str
    header: Header
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


class Runs(Protocol[Answers_co]):
    """An execution context."""

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> Answers_co: ...
    def profile(self, inputs: Mapping[str, Any], repeats: int = 10) -> np.ndarray: ...
    def close(self) -> None: ...


Loaded = TypeVar("Loaded", bound=Parts)


class CallableEngine(Generic[Loaded, Answers]):
    """A function from arrays to arrays, from any number of threads; a device says what its ``context`` is."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded: Loaded | None = loaded
        self.path, self.header = loaded.path, loaded.header
        self.inputs: tuple[Port, ...] = loaded.inputs
        self.outputs: tuple[Port, ...] = loaded.outputs
        self._idle: list[Runs[Answers]] = []
        self._calls: dict[str, Calls] = {}  # made when the first call is made ahead

    @property
    def report(self) -> Mapping[str, Any]:
        """What the builder wrote about the build."""
        return self.header.report

    def __call__(self, **inputs: Any) -> Answers:
        return self.run(inputs)

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> Answers:
        """The outputs by name; see ``run`` of the context. ``engine(**inputs)`` is the short form."""
        context = self._take()
        try:
            return context.run(inputs, out)
        finally:
            self._give_back(context)

    def run_async(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> "Pending[Answers]":
        """``run`` on a thread of the engine: a ``concurrent.futures.Future`` that can be awaited too.

        ``cancel()`` takes back a call that has not begun. The arrays must stay as they are until the call is done.
        """
        self._open()
        return (self._calls.get("") or self._make_calls()).submit(lambda: self.run(inputs, out))

    def _make_calls(self) -> "Calls":
        made: Calls = importlib.import_module("redline.runtime.calls").Calls(cpu.num_threads())
        calls = self._calls.setdefault("", made)  # of two threads that come together, one is first
        if calls is made:
            weakref.finalize(self, calls.close).atexit = False
        return calls

    def header_at(self, inputs: Mapping[str, Any]) -> Header:
        """The plan that a call with ``inputs`` runs."""
        return self.header

    def profile(self, inputs: Mapping[str, Any], repeats: int = 10) -> np.ndarray:
        """The seconds of each kernel of ``header_at(inputs)``, shape [repeats, kernels]; see ``profile`` of the context."""
        context = self._take()
        try:
            return context.profile(inputs, repeats)
        finally:
            self._give_back(context)

    def context(self, num_threads: int = 0) -> Runs[Answers]:
        """A context of its own for the caller."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees everything that no running call or open context needs, and cancels calls that have not begun.

        A second call does nothing.
        """
        self._loaded = None
        for calls in self._calls.values():
            calls.close()
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        ports = (", ".join(map(repr, side)) for side in (self.inputs, self.outputs))
        more = "".join(f"; {plan.name}" for plan in self.header.variants)
        return f"{type(self).__name__}({self.path}: {' -> '.join(ports)}{more})"

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise EngineError(self.path, "the engine is closed")
        return self._loaded

    def _take(self) -> Runs[Answers]:
        """An idle context or a new one. Lists pop and append atomically, so no lock can outlive a fork."""
        try:
            return self._idle.pop()
        except IndexError:
            return self.context()

    def _give_back(self, context: Runs[Answers]) -> None:
        self._idle.append(context)
        if self._loaded is None:
            self.close()
