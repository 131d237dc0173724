"""A CUDA execution context: arena, workspace, stream, and a graph of all launches for each set of arguments."""

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from redline.base import dtypes
from redline.base.errors import EngineError, InputError
from redline.engine import Access
from redline.runtime.cuda.arrays import DeviceArray, on_device, take
from redline.runtime.cuda.driver import Params
from redline.runtime.cuda.loaded import CudaLoaded
from redline.runtime.ports import check_names

MAX_GRAPHS = 16
ALIGNMENT = 256
PROFILE_LAUNCHES = 20
Results = dict[str, Any]


class CudaContext:
    """Runs one inference at a time on a stream of its own; contexts of one engine share its weights and code."""

    def __init__(self, loaded: CudaLoaded) -> None:
        self._loaded: CudaLoaded | None = loaded
        self._driver = loaded.driver
        self._busy = threading.Lock()
        self._graphs: OrderedDict[tuple[int, ...], tuple[Any, list[Any]]] = OrderedDict()
        header = loaded.header
        sizes = [header.arena_bytes, loaded.launches.workspace_bytes]
        sizes += [port_bytes(port) for port in (*loaded.inputs, *loaded.outputs)]
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

    # running

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> Results:
        """The outputs by name, for inputs by name; waits for them.

        Inputs are arrays of the host or of the device. Outputs are new host arrays, or those in ``out``, which may be of the
        device too. Raises InputError for a wrong name, type or shape, and when another thread is running this context.
        """
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            given = out or {}
            check_names(inputs, loaded.inputs, "input")
            check_names(given, loaded.outputs, "output")
            sources = [self._bind_input(i, inputs[port.name]) for i, port in enumerate(loaded.inputs)]
            targets, results = [], {}
            for i, port in enumerate(loaded.outputs):
                value = given.get(port.name)
                results[port.name] = np.empty(port.shape, port.dtype) if value is None else value
                direct = value is not None and on_device(value)
                targets.append(take(value, port, "output").address if direct else self._own_outputs[i])
            self._launch(sources, targets)
            self._collect(results, targets)
            return results

    def launch(self, inputs: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        """Starts an inference on device arrays and returns; ``wait`` or an event on ``stream`` says when it is done."""
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            sources = [take(inputs[port.name], port, "input").address for port in loaded.inputs]
            targets = [take(out[port.name], port, "output").address for port in loaded.outputs]
            self._launch(sources, targets)

    def prepare(self, inputs: Mapping[str, Any], out: Mapping[str, Any]) -> Any:
        """The graph for these device arrays, for callers that launch it themselves: ``replay(graph)``."""
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            sources = [take(inputs[port.name], port, "input").address for port in loaded.inputs]
            targets = [take(out[port.name], port, "output").address for port in loaded.outputs]
            return self._graph(sources, targets)

    def replay(self, graph: Any) -> None:
        """Starts a prepared graph; the device's context must be current (``with loaded.current()``) in the calling thread."""
        self._driver.launch_graph(graph, self.stream)

    def wait(self) -> None:
        """Until everything that was started is done."""
        with self._open().current():
            self._driver.wait(self.stream)

    def device_inputs(self) -> dict[str, DeviceArray]:
        """The context's own input memory."""
        return self._own(self._open().inputs, self._own_inputs)

    def device_outputs(self) -> dict[str, DeviceArray]:
        """The context's own output memory."""
        return self._own(self._open().outputs, self._own_outputs)

    def _own(self, ports: Sequence[Any], addresses: Sequence[int]) -> dict[str, DeviceArray]:
        return {p.name: DeviceArray(a, p.shape, p.dtype, self) for p, a in zip(ports, addresses, strict=True)}

    def poison(self) -> None:
        """Fills arena and outputs with NaN-like bytes, so that a test sees what was not written."""
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            self._driver.fill(self._arena, 0xFF, loaded.header.arena_bytes, self.stream)
            for port, address in zip(loaded.outputs, self._own_outputs, strict=True):
                self._driver.fill(address, 0xFF, port_bytes(port), self.stream)
            self._driver.wait(self.stream)

    def profile(self, inputs: Mapping[str, Any], repeats: int = 10) -> np.ndarray:
        """The seconds of each step, shape [repeats, steps]: the mean of several launches of it in a row, in a graph."""
        loaded = self._open()
        self.run(inputs)
        steps = len(loaded.launches.launches)
        seconds = np.zeros((repeats, steps))
        with _Exclusive(self._busy), loaded.current():
            begin, end = self._driver.event(), self._driver.event()
            for step in range(steps):
                graph, keep = self._capture(self._own_inputs, self._own_outputs, [step] * PROFILE_LAUNCHES)
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

    def seconds(self, replays: int = 30) -> float:
        """The time of one inference on inputs of zeros, the median of ``replays``, on the device."""
        loaded = self._open()
        with _Exclusive(self._busy), loaded.current():
            for port, address in zip(loaded.inputs, self._own_inputs, strict=True):
                self._driver.fill(address, 0, port_bytes(port), self.stream)
            graph = self._graph(self._own_inputs, self._own_outputs)
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

    def _bind_input(self, i: int, value: Any) -> int:
        """The device address that the kernels read; host arrays are copied through pinned memory."""
        port = self._open().inputs[i]
        if on_device(value):
            return take(value, port, "input").address
        array = value if port.takes(value) else port.accept(value)
        address = self._own_inputs[i]
        ctypes.memmove(address + self._shift, array.ctypes.data, array.nbytes)
        self._driver.to_device(address, address + self._shift, array.nbytes, self.stream)
        return address

    def _launch(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self._driver.launch_graph(self._graph(sources, targets), self.stream)

    def _collect(self, results: Results, targets: Sequence[int]) -> None:
        loaded = self._open()
        mine = [i for i, target in enumerate(targets) if target == self._own_outputs[i]]
        for i in mine:
            self._driver.to_host(targets[i] + self._shift, targets[i], port_bytes(loaded.outputs[i]), self.stream)
        self._driver.wait(self.stream)
        for i in mine:
            port = loaded.outputs[i]
            array = port.accept_output(results[port.name])
            ctypes.memmove(array.ctypes.data, targets[i] + self._shift, array.nbytes)

    def _graph(self, sources: Sequence[int], targets: Sequence[int]) -> Any:
        key = (*sources, *targets)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key][0]
        if len(self._graphs) >= MAX_GRAPHS:
            self._driver.wait(self.stream)
            self._driver.destroy_graph(self._graphs.popitem(last=False)[1][0])
        self._graphs[key] = self._capture(sources, targets, range(len(self._open().launches.launches)))
        return self._graphs[key][0]

    def _capture(self, sources: Sequence[int], targets: Sequence[int], steps: Sequence[int]) -> tuple[Any, list[Any]]:
        """A graph of the launches of ``steps``, and the parameters, which must live as long as the capture."""
        loaded = self._open()
        launches, keep = loaded.launches, []
        prepared = [(step, loaded.function(step), self._params(step, sources, targets)) for step in steps]
        self._driver.begin_capture(self.stream)
        for number, (step, function, params) in enumerate(prepared):
            record = launches.launches[step]
            keep.append(params)
            overlap = launches.overlap and number > 0
            address = params.close()
            self._driver.launch(function, record.grid, record.threads, record.shared_bytes, address, self.stream, overlap)
        return self._driver.end_capture(self.stream), keep

    def _params(self, step: int, sources: Sequence[int], targets: Sequence[int]) -> Params:
        loaded = self._open()
        kernel, record = loaded.header.kernels[step], loaded.launches.launches[step]
        maps = {m.parameter: m for m in record.maps}
        params = Params()
        for number, access in enumerate(kernel.reads + kernel.writes):
            address = self._address(access, sources, targets)
            m = maps.get(number)
            if m is None:
                params.pointer(address)
            else:
                size = dtypes.from_name(m.dtype).size
                made = self._driver.tensor_map(m.dtype, address, m.shape, m.strides, m.box, m.swizzle, size)
                params.map(made, m.shape, m.strides)
        if record.workspace:
            params.pointer(self._workspace)
        return params

    def _address(self, access: Access, sources: Sequence[int], targets: Sequence[int]) -> int:
        if access.space == "input":
            return sources[access.tensor] + access.offset
        if access.space == "output":
            return targets[access.tensor] + access.offset
        loaded = self._open()
        base = self._arena if access.space == "arena" else loaded.weights
        return base + loaded.header.tensors[access.tensor].offset + access.offset


class _Exclusive:
    """Holds a lock; raises InputError where another thread has it."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise InputError("context", "it is running in another thread", "", "make a context for each thread")

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def port_bytes(port: Any) -> int:
    return int(port.dtype.itemsize * np.prod(port.shape, dtype=np.int64))


def _place(sizes: Sequence[int]) -> tuple[list[int], int]:
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
    return starts, end
