"""A CUDA execution context: arena, workspace, stream, and a graph of all launches for each set of shapes and addresses.

Graphs are kept in a bounded number. Where the shapes of calls vary, launches become a graph when the same call comes again:
making one takes longer than launching once.
"""

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.base import dtypes
from redline.base.errors import EngineError, InputError
from redline.base.shapes import StaticShape
from redline.engine import Access, formula, spans
from redline.engine.launch import Launch
from redline.runtime.cuda.arrays import DeviceArray, on_device, take
from redline.runtime.cuda.driver import Params
from redline.runtime.cuda.loaded import CudaLoaded, CudaPlan
from redline.runtime.dispatch import Given
from redline.runtime.ports import Port, check_names
from redline.runtime.profile import Bound

MAX_GRAPHS = 16
MAX_SEEN = 256  # calls that a context remembers without a graph
ALIGNMENT = 256
PROFILE_LAUNCHES = 20
Results = dict[str, Any]
Key = tuple[Any, ...]  # of a call: its plan, shapes and addresses


class CudaContext:
    """Runs one inference at a time on a stream of its own; contexts of one engine share its weights and code."""

    def __init__(self, loaded: CudaLoaded) -> None:
        self._loaded: CudaLoaded | None = loaded
        self._driver = loaded.driver
        self._busy = threading.Lock()
        self._graphs: OrderedDict[Key, tuple[Any, list[Any]]] = OrderedDict()
        self._seen: OrderedDict[Key, None] = OrderedDict()  # calls that came once
        self._known: dict[Given, Bound] = {}
        self._bound: Bound | None = None
        sizes = [self._arena_bytes(loaded), max(plan.launches.workspace_bytes for plan in loaded.plans)]
        sizes += _largest(loaded)
        starts, total = _place(sizes)
        with loaded.current():
            self.stream = self._driver.stream()
            self._memory = self._driver.alloc(total, f"a context of {loaded.path}")
            self._driver.fill(self._memory + starts[1], 0, sizes[1], self.stream)
            self._host = self._driver.host_alloc(max(1, total - starts[2] if len(starts) > 2 else 1), "inputs and outputs")
            self._driver.wait(self.stream)
        self._arena, self._workspace = self._memory + starts[0], self._memory + starts[1]
        own = [self._memory + start for start in starts[2:]]
        self._own_inputs, self._own_outputs = own[: len(loaded.inputs)], own[len(loaded.inputs) :]
        self._shift = self._host - (self._memory + starts[2]) if own else 0

    @staticmethod
    def _arena_bytes(loaded: CudaLoaded) -> int:
        return max(plan.header.arena_bytes for plan in loaded.plans)

    # running

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> Results:
        """The outputs by name, for inputs by name; waits for them.

        Inputs are arrays of the host or of the device. Outputs are new host arrays, or those in ``out``, which may be of the
        device too. Raises InputError for a wrong name, type or shape, and when another thread is running this context.
        """
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            given = out or {}
            bound = self._bind(loaded, inputs)
            check_names(given, loaded.outputs, "output")
            sources = [
                self._bind_input(i, inputs[port.name], bound.inputs[i]) for i, port in enumerate(loaded.inputs)
            ]  # fmt: skip
            targets, results = [], {}
            for i, (port, shape) in enumerate(zip(loaded.outputs, bound.outputs, strict=True)):
                value = given.get(port.name)
                results[port.name] = np.empty(shape, port.dtype) if value is None else value
                direct = value is not None and on_device(value)
                targets.append(take(value, port, "output", shape).address if direct else self._own_outputs[i])
            self._launch(bound, sources, targets)
            self._collect(results, targets, bound)
            return results

    def launch(self, inputs: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        """Starts an inference on device arrays and returns; ``wait`` or an event on ``stream`` says when it is done."""
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            self._launch(*self._bind_arrays(loaded, inputs, out))

    def prepare(self, inputs: Mapping[str, Any], out: Mapping[str, Any]) -> Any:
        """The graph for these device arrays, for callers that launch it themselves: ``replay(graph)``."""
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            return self._graph(*self._bind_arrays(loaded, inputs, out))

    def _bind(self, loaded: CudaLoaded, inputs: Mapping[str, Any]) -> Bound:
        """The plan and dimensions of a call with ``inputs``."""
        check_names(inputs, loaded.inputs, "input")
        self._bound = loaded.shapes.bind(inputs, self._bound, self._known)
        return self._bound

    def _bind_arrays(
        self, loaded: CudaLoaded, inputs: Mapping[str, Any], out: Mapping[str, Any]
    ) -> tuple[Bound, list[int], list[int]]:  # fmt: skip
        """The addresses of device arrays."""
        bound = self._bind(loaded, inputs)
        check_names(out, loaded.outputs, "output")
        sources = [take(inputs[p.name], p, "input", s).address for p, s in zip(loaded.inputs, bound.inputs, strict=True)]
        targets = [take(out[p.name], p, "output", s).address for p, s in zip(loaded.outputs, bound.outputs, strict=True)]
        return bound, sources, targets

    def replay(self, graph: Any) -> None:
        """Starts a prepared graph; the device's context must be current (``with loaded.current()``) in the calling thread."""
        self._driver.launch_graph(graph, self.stream)

    def wait(self) -> None:
        """Until everything that was started is done."""
        with self._open().current():
            self._driver.wait(self.stream)

    def device_inputs(self, shapes: Mapping[str, StaticShape] | None = None) -> dict[str, DeviceArray]:
        """The context's own input memory, for inputs of these shapes; without them, of those that the engine was tuned for."""
        loaded = self._open()
        return _own(loaded.inputs, self._own_inputs, self._shapes(loaded, shapes).inputs, self)

    def device_outputs(self, shapes: Mapping[str, StaticShape] | None = None) -> dict[str, DeviceArray]:
        """The context's own output memory, for inputs of these shapes."""
        loaded = self._open()
        return _own(loaded.outputs, self._own_outputs, self._shapes(loaded, shapes).outputs, self)

    def _shapes(self, loaded: CudaLoaded, shapes: Mapping[str, StaticShape] | None) -> Bound:
        given = shapes or {port.name: port.shape for port in loaded.inputs}
        return loaded.shapes.bind({name: _Shaped(shape) for name, shape in given.items()}, None, {})

    def poison(self) -> None:
        """Fills arena and outputs with NaN-like bytes, so that a test sees what was not written."""
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            self._driver.fill(self._arena, 0xFF, self._arena_bytes(loaded), self.stream)
            for size, address in zip(_largest(loaded)[len(loaded.inputs) :], self._own_outputs, strict=True):
                self._driver.fill(address, 0xFF, size, self.stream)
            self._driver.wait(self.stream)

    def profile(self, inputs: Mapping[str, Any], repeats: int = 10) -> np.ndarray:
        """The seconds of each step, shape [repeats, steps]: the mean of several launches of it in a row, in a graph."""
        loaded = self._open()
        self.run(inputs)
        bound = self._bind(loaded, inputs)
        steps = len(loaded.plans[bound.plan].header.kernels)
        seconds = np.zeros((repeats, steps))
        with _Exclusive(self._busy), loaded.current():
            begin, end = self._driver.event(), self._driver.event()
            for step in range(steps):
                graph, keep = self._capture(bound, self._own_inputs, self._own_outputs, [step] * PROFILE_LAUNCHES)
                for repeat in range(-1, repeats):
                    self._driver.record(begin, self.stream)
                    self._driver.launch_graph(graph, self.stream)
                    self._driver.record(end, self.stream)
                    seconds[max(repeat, 0), step] = self._driver.seconds(begin, end) / PROFILE_LAUNCHES
                self._driver.destroy_graph(graph)
                del keep
            self._driver.destroy_event(begin)
            self._driver.destroy_event(end)
        return seconds

    def seconds(self, replays: int = 30, shapes: Mapping[str, StaticShape] | None = None) -> float:
        """The time of one inference on inputs of zeros, the median of ``replays``, on the device.

        ``shapes`` of the inputs: by default those that the engine was tuned for.
        """
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            for size, address in zip(_largest(loaded), self._own_inputs, strict=False):
                self._driver.fill(address, 0, size, self.stream)
            graph = self._graph(self._shapes(loaded, shapes), self._own_inputs, self._own_outputs)
            begin, end = self._driver.event(), self._driver.event()
            times = []
            for _ in range(replays + 3):
                self._driver.record(begin, self.stream)
                self._driver.launch_graph(graph, self.stream)
                self._driver.record(end, self.stream)
                times.append(self._driver.seconds(begin, end))
            self._driver.destroy_event(begin)
            self._driver.destroy_event(end)
        return float(np.median(times[3:]))

    def close(self) -> None:
        """Frees the context's memory, stream and graphs; a second call does nothing."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        with loaded.current():
            self._driver.wait(self.stream)
            for graph, _ in self._graphs.values():
                self._driver.destroy_graph(graph)
            self._graphs.clear()
            self._driver.free(self._memory)
            self._driver.host_free(self._host)
            self._driver.destroy_stream(self.stream)

    # parts

    def _open(self) -> CudaLoaded:
        if self._loaded is None:
            raise EngineError("context", "it is closed")
        return self._loaded

    def _bind_input(self, i: int, value: Any, shape: StaticShape) -> int:
        """The device address that the kernels read; host arrays are copied through pinned memory."""
        port = self._open().inputs[i]
        if on_device(value):
            return take(value, port, "input", shape).address
        array = value if port.takes(value, shape) else port.accept(value, shape)
        address = self._own_inputs[i]
        ctypes.memmove(address + self._shift, array.ctypes.data, array.nbytes)
        self._driver.to_device(address, address + self._shift, array.nbytes, self.stream)
        return address

    def _collect(self, results: Results, targets: Sequence[int], bound: Bound) -> None:
        loaded = self._open()
        mine = [i for i, target in enumerate(targets) if target == self._own_outputs[i]]
        for i in mine:
            num_bytes = port_bytes(loaded.outputs[i], bound.outputs[i])
            self._driver.to_host(targets[i] + self._shift, targets[i], num_bytes, self.stream)
        self._driver.wait(self.stream)
        for i in mine:
            port = loaded.outputs[i]
            array = port.accept_output(results[port.name], bound.outputs[i])
            ctypes.memmove(array.ctypes.data, targets[i] + self._shift, array.nbytes)

    def _launch(self, bound: Bound, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Starts the steps: as a graph, unless calls differ and this one is new."""
        key = _key(bound, sources, targets)
        if key in self._graphs or key in self._seen or self._open().shapes.closed is not None:
            self._seen.pop(key, None)
            self._driver.launch_graph(self._graph(bound, sources, targets), self.stream)
            return
        if len(self._seen) >= MAX_SEEN:
            self._seen.popitem(last=False)
        self._seen[key] = None
        plan = self._open().plans[bound.plan]
        self._start(self._prepared(bound, sources, targets, range(len(plan.header.kernels))), plan)

    def _graph(self, bound: Bound, sources: Sequence[int], targets: Sequence[int]) -> Any:
        key = _key(bound, sources, targets)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key][0]
        if len(self._graphs) >= MAX_GRAPHS:
            self._driver.wait(self.stream)
            self._driver.destroy_graph(self._graphs.popitem(last=False)[1][0])
        steps = range(len(self._open().plans[bound.plan].header.kernels))
        self._graphs[key] = self._capture(bound, sources, targets, steps)
        return self._graphs[key][0]

    def _capture(
        self, bound: Bound, sources: Sequence[int], targets: Sequence[int], steps: Sequence[int]
    ) -> tuple[Any, list[Any]]:  # fmt: skip
        """A graph of the launches of ``steps``, and the parameters, which must live as long as the capture."""
        prepared = self._prepared(bound, sources, targets, steps)
        self._driver.begin_capture(self.stream)
        keep = self._start(prepared, self._open().plans[bound.plan])
        return self._driver.end_capture(self.stream), keep

    def _prepared(
        self, bound: Bound, sources: Sequence[int], targets: Sequence[int], steps: Sequence[int]
    ) -> "list[_Launch]":  # fmt: skip
        loaded = self._open()
        plan, dims, found = loaded.plans[bound.plan], _dims(bound, loaded.plans[bound.plan]), {}
        launches = plan.launches.at(dims)
        for step in dict.fromkeys(steps):
            record = launches[step]
            function = loaded.function(plan, record, plan.header.kernels[step].symbol)
            params = self._params(plan, step, record, dims, sources, targets)
            grid = record.grid_at(dims)
            found[step] = _Launch(function, grid, record.threads, record.shared_bytes, params, params.close())
        return [found[step] for step in steps]

    def _start(self, prepared: "Sequence[_Launch]", plan: CudaPlan) -> list[Any]:
        for number, each in enumerate(prepared):
            overlap = plan.launches.overlap and number > 0
            self._driver.launch(
                each.function, each.grid, each.threads, each.shared_bytes, each.address, self.stream, overlap
            )  # fmt: skip
        return [each.params for each in prepared]

    def _params(
        self, plan: CudaPlan, step: int, record: Launch, dims: Sequence[int], sources: Sequence[int], targets: Sequence[int]
    ) -> Params:  # fmt: skip
        kernel = plan.header.kernels[step]
        maps = {m.parameter: m for m in record.maps}
        starts = [formula.value(start, dims) for start in record.starts]
        params = Params()
        for number, access in enumerate(kernel.reads + kernel.writes):
            start = starts[number] if starts else access.offset
            address = self._base(plan, access, sources, targets) + start
            m = maps.get(number)
            if m is None:
                params.pointer(address)
            else:
                size = dtypes.from_name(m.dtype).size
                shape, strides = ([formula.value(n, dims) for n in numbers] for numbers in (m.shape, m.strides))
                made = self._driver.tensor_map(m.dtype, address, shape, strides, m.box, m.swizzle, size)
                params.map(made, shape, strides)
        if record.workspace:
            params.pointer(self._workspace)
        for dim in record.dims:
            params.number(dims[dim])
        return params

    def _base(self, plan: CudaPlan, access: Access, sources: Sequence[int], targets: Sequence[int]) -> int:
        """Where the tensor of an access begins."""
        if access.space == "input":
            return sources[access.tensor]
        if access.space == "output":
            return targets[access.tensor]
        base = self._arena if access.space == "arena" else self._open().weights
        return base + plan.header.tensors[access.tensor].offset


@dataclass(frozen=True)
class _Launch:
    """A kernel with its arguments, at ``address``."""

    function: Any
    grid: tuple[int, ...]
    threads: int
    shared_bytes: int
    params: Params
    address: int


@dataclass(frozen=True)
class _Shaped:
    shape: StaticShape


class _Exclusive:
    """Holds a lock; raises InputError where another thread has it."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise InputError("context", "it is running in another thread", "", "make a context for each thread")

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _key(bound: Bound, sources: Sequence[int], targets: Sequence[int]) -> Key:
    return bound.plan, bound.inputs if bound.dims is not None else (), *sources, *targets


def _dims(bound: Bound, plan: CudaPlan) -> list[int]:
    """The values of the plan's dimensions."""
    return [] if bound.dims is None else list(bound.dims[: len(plan.header.dims)])


def _own(ports: Sequence[Port], addresses: Sequence[int], shapes: Sequence[StaticShape], owner: Any) -> dict[str, DeviceArray]:
    return {p.name: DeviceArray(a, s, p.dtype, owner) for p, a, s in zip(ports, addresses, shapes, strict=True)}


def _largest(loaded: CudaLoaded) -> list[int]:
    """The most bytes of each input, then of each output, over all plans."""
    most = spans(loaded.header)
    return [port_bytes(port, [high for _, high in most[port.name]]) for port in (*loaded.inputs, *loaded.outputs)]


def port_bytes(port: Port, shape: Sequence[int]) -> int:
    return int(port.dtype.itemsize * np.prod(shape, dtype=np.int64))


def _place(sizes: Sequence[int]) -> tuple[list[int], int]:
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
    return starts, end
