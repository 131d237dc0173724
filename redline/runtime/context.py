"""An execution context: what one inference at a time needs besides the engine, that is an arena and the call's arguments."""

import contextlib
import ctypes
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from redline.base.errors import EngineError, InputError
from redline.engine import Header
from redline.runtime.dispatch import Given
from redline.runtime.library import Call, pointers
from redline.runtime.loaded import Loaded, Plan
from redline.runtime.memory import Arena
from redline.runtime.ports import check_apart, check_names
from redline.runtime.profile import Bound

Arrays = dict[str, np.ndarray]


class Slot:
    """A plan in a context: the arguments of its calls, and the executor's state between them."""

    def __init__(self, plan: Plan, call: Call, state: Arena) -> None:
        self.plan, self.call, self._state = plan, call, state
        self.call.state = state.address
        self.address = ctypes.addressof(call)

    def close(self) -> None:
        self._state.close()


class Context:
    """Runs one inference at a time; contexts of one engine share its weights and run beside each other."""

    def __init__(self, loaded: Loaded, num_threads: int) -> None:
        library = loaded.library
        self._loaded: Loaded | None = loaded
        self._num_threads = num_threads
        most = max(library.workspace_bytes(plan, num_threads) for plan in range(library.num_plans))
        self._arena = Arena(most, loaded.path)  # pages that no plan in use touches are never had
        self._in, self._out = pointers([0] * len(loaded.inputs)), pointers([0] * len(loaded.outputs))
        self._busy = threading.Lock()
        self._slots: dict[int, Slot] = {}
        self._bound: Bound | None = None  # the shapes of the last call
        self._known: dict[Given, Bound] = {}  # and of others before it
        self._slot = self._open_slot(loaded, 0)

    def _open_slot(self, loaded: Loaded, number: int) -> Slot:
        threads, slots = self._num_threads, self._slots
        if number not in slots:
            call = Call(
                arena=self._arena.address, weights=loaded.address, inputs=self._in, outputs=self._out, num_threads=threads,
                capacity=threads, plan=number, end_step=loaded.library.num_steps[number],
            )  # fmt: skip
            state = Arena(loaded.library.state_bytes(number, threads), loaded.path)
            slots[number] = Slot(loaded.plan(number), call, state)
        return slots[number]

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, np.ndarray] | None = None) -> Arrays:
        """The outputs by name, for inputs by name.

        Contiguous inputs are read where they are, others are copied. Outputs are new arrays, or those in ``out``. Raises
        InputError for a wrong name, type or shape, and when another thread is running this context. An output whose shape
        depends on data is a view of its array's beginning; an array in ``out`` for it has the largest shape.
        """
        loaded = self._loaded
        if loaded is None:
            raise EngineError("context", "it is closed")
        if not self._busy.acquire(blocking=False):
            raise InputError("context", "it is running in another thread", "", "make a context for each thread")
        try:
            bound = self._bind_shapes(loaded, inputs)
            arrays = self._bind_inputs(loaded, inputs, bound)
            results = self._bind_outputs(loaded, arrays, out, bound)
            plan = self._slot.plan
            if plan.weights.is_checked:
                self._run_steps(loaded, 0, plan.num_steps)
            else:
                self._run_behind_check(loaded, plan)
            return self._as_found(loaded, results, bound) if bound.found else results
        finally:
            self._busy.release()

    def _as_found(self, loaded: Loaded, results: Arrays, bound: Bound) -> Arrays:
        """``results``; those whose shape depends on data as the beginning of the array that was written."""
        shaped = dict(results)
        for number in bound.found:
            name, shape = loaded.outputs[number].name, self._slot.plan.profile.shape_of(number, bound)
            shaped[name] = results[name].reshape(-1)[: math.prod(shape)].reshape(shape)
        return shaped

    def _run_steps(self, loaded: Loaded, first: int, end: int) -> None:
        slot = self._slot
        slot.call.first_step, slot.call.end_step = first, end
        if loaded.library.run(loaded.pool, slot.address):
            raise EngineError(loaded.path, "its code does not fit this process's thread pool", "", "build the engine again")

    def _run_behind_check(self, loaded: Loaded, plan: Plan) -> None:
        """Runs while the weights are being checked: no step before the blocks that it reads."""
        step, weights = 0, plan.weights
        while step < plan.num_steps:
            weights.check(weights.needs[step])
            end = weights.reach(step)
            self._run_steps(loaded, step, end)
            step = end

    def profile(self, inputs: Mapping[str, Any], repeats: int = 10) -> np.ndarray:
        """The seconds of each step of the plan for ``inputs``, shape [repeats, steps].

        Steps do not overlap here, so their sum exceeds a run's time.
        """
        loaded = self._loaded
        if loaded is None:
            raise EngineError("context", "it is closed")
        slot = self._open_slot(loaded, self._bind_shapes(loaded, inputs).plan)
        steps = slot.plan.num_steps
        seconds = np.zeros((repeats, steps))
        buffer = (ctypes.c_double * max(1, steps))()
        slot.call.step_seconds = buffer
        try:
            for repeat in range(repeats):
                self.run(inputs)
                seconds[repeat] = buffer[:steps]
        finally:
            slot.call.step_seconds = None
        return seconds

    def header_at(self, inputs: Mapping[str, Any]) -> Header:
        """The plan that a call with ``inputs`` runs."""
        loaded = self._loaded
        if loaded is None:
            raise EngineError("context", "it is closed")
        return loaded.plan(self._bind_shapes(loaded, inputs).plan).header

    @contextlib.contextmanager
    def stepping(self, inputs: Mapping[str, Any]) -> Iterator[tuple[Callable[[int], None], int, list[np.ndarray]]]:
        """For one inference kernel by kernel: a function that runs kernel number n, the arena's address, and the outputs."""
        loaded = self._loaded
        if loaded is None:
            raise EngineError("context", "it is closed")
        bound = self._bind_shapes(loaded, inputs)
        arrays = self._bind_inputs(loaded, inputs, bound)
        results = self._bind_outputs(loaded, arrays, None, bound)
        self._slot.plan.weights.preload()
        yield lambda step: self._run_steps(loaded, step, step + 1), self._arena.address, list(results.values())

    def close(self) -> None:
        """Frees the arena; a second call does nothing. The engine's code goes with the last of its users."""
        if self._loaded is not None:
            self._loaded = None
            self._arena.close()
            for slot in self._slots.values():
                slot.close()

    def _bind_shapes(self, loaded: Loaded, inputs: Mapping[str, Any]) -> Bound:
        """The call's dimensions and plan, by the shapes of its inputs."""
        ports = loaded.inputs
        if len(inputs) != len(ports) or any(port.name not in inputs for port in ports):
            check_names(inputs, ports, "input")
        bound = loaded.shapes.bind(inputs, self._bound, self._known)
        if bound is not self._bound:
            self._slot = self._slots.get(bound.plan) or self._open_slot(loaded, bound.plan)
            self._bound, self._slot.call.dims = bound, bound.dims
        return bound

    def _bind_inputs(self, loaded: Loaded, inputs: Mapping[str, Any], bound: Bound) -> list[np.ndarray]:
        """Writes the inputs' addresses into the call; gives the arrays, which must live as long as it runs."""
        arrays = []
        for index, (port, shape) in enumerate(zip(loaded.inputs, bound.inputs, strict=True)):
            array = inputs[port.name]
            if not port.takes(array, shape):
                array = port.accept(array, shape)
            arrays.append(array)
            self._in[index] = array.__array_interface__["data"][0]
        return arrays

    def _bind_outputs(
        self, loaded: Loaded, inputs: list[np.ndarray], out: Mapping[str, np.ndarray] | None, bound: Bound
    ) -> Arrays:  # fmt: skip
        given: Mapping[str, np.ndarray] = out or {}
        results = {}
        for port, shape in zip(loaded.outputs, bound.outputs, strict=True):
            array = given.get(port.name)
            if array is None:
                array = np.empty(shape, port.dtype)
            elif not (port.takes(array, shape) and array.flags.writeable):
                array = port.accept_output(array, shape)
            results[port.name] = array
        if given:
            if any(name not in results for name in given):
                check_names(given, loaded.outputs, "output")
            check_apart(inputs, [results[name] for name in given])
        for index, array in enumerate(results.values()):
            self._out[index] = array.__array_interface__["data"][0]
        return results
