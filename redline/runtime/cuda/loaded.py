"""A CUDA engine's parts on one device: mapped file, plans, primary context, modules, weights. Shared by its contexts.

Code is loaded when a kernel is first launched; weights are copied once, piece by piece through pinned memory, so that
reading the file and copying overlap.
"""

import ctypes
import os
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.base.errors import EngineError
from redline.engine import EngineFile, Header, check_plan, check_variants, launch
from redline.runtime.cuda.driver import Driver
from redline.runtime.dispatch import Dispatch
from redline.runtime.ports import Port

PIECE_BYTES = 32 << 20


@dataclass(frozen=True)
class CudaPlan:
    """The steps for some shapes, and how they are launched on this GPU."""

    header: Header
    launches: launch.Launches


class CudaLoaded:
    """Freed when neither an engine nor a context holds it any more."""

    def __init__(self, file: EngineFile, device: int, driver: Driver | None = None) -> None:
        """``file``: open, and owned by this object from here on."""
        try:
            self.path, self.header = file.path, file.header
            check_variants(file.header, file.path)
            self.driver, self.device, self.process = driver or Driver(), device, os.getpid()
            _check_device(self.driver, device, self.path)
            arch = _best_arch(file.header.stamp.features, self.driver, device, self.path)
            self._code = file.blob(f"cubins.{arch}")
            self.plans = tuple(_plan(file, number, arch, self._code.nbytes) for number in range(1 + len(file.header.variants)))
            self.shapes = Dispatch(self.header)
            self.context = self.driver.retain(device)
        except BaseException:
            file.close()
            raise
        self.functions: dict[int, Any] = {}
        self._modules: list[Any] = []
        self._freed: list[int] = []
        self.inputs = tuple(Port(io, self.header.dims) for io in self.header.inputs)
        self.outputs = tuple(Port(io, self.header.dims) for io in self.header.outputs)
        parts = (self.driver, device, self.context, self._modules, self._freed, file, self.process)
        weakref.finalize(self, _close, *parts).atexit = False
        with self.current():
            self.weights = self._upload(file)

    def current(self) -> "_Current":
        """The device's context is current in this thread. Raises EngineError in a forked process."""
        if os.getpid() != self.process:
            remedy = "load the engine after the fork, or start processes with spawn"
            raise EngineError(
                self.path, "this process was forked from the one that loaded the engine", "CUDA forbids that", remedy
            )
        return _Current(self.driver, self.context)

    def function(self, plan: CudaPlan, record: launch.Launch, symbol: str) -> Any:
        """The kernel of a launch, loaded now if it is not yet. Plans share what has the same code."""
        part = plan.launches.cubins[record.cubin]
        if part.offset not in self.functions:
            code = self._code[part.offset : part.offset + part.num_bytes].tobytes()
            shared = max(self._shared_bytes(each, part) for each in self.plans)
            module, self.functions[part.offset] = self.driver.load(code, shared, f"kernel {symbol}")
            self._modules.append(module)
        return self.functions[part.offset]

    @staticmethod
    def _shared_bytes(plan: CudaPlan, part: launch.Part) -> int:
        """The most shared memory that launches of the code ``part`` ask for."""
        return max((r.shared_bytes for r in plan.launches.all if plan.launches.cubins[r.cubin] == part), default=0)

    def _upload(self, file: EngineFile) -> int:
        source = file.blob("weights")
        target = self.driver.alloc(source.nbytes, "the weights")
        self._freed.append(target)
        piece = min(PIECE_BYTES, max(1, source.nbytes))
        stream = self.driver.stream()
        buffers = [self.driver.host_alloc(piece, "staging the weights") for _ in range(2)]
        views = [np.ctypeslib.as_array((ctypes.c_uint8 * piece).from_address(b)) for b in buffers]
        events = [self.driver.event() for _ in buffers]
        try:
            for number, start in enumerate(range(0, source.nbytes, piece)):
                which = number % 2
                if number >= 2:
                    self.driver.seconds(events[which], events[which])
                data = source[start : start + piece]
                views[which][: data.nbytes] = data
                self.driver.to_device(target + start, buffers[which], data.nbytes, stream)
                self.driver.record(events[which], stream)
            self.driver.wait(stream)
        finally:
            for buffer, event in zip(buffers, events, strict=True):
                self.driver.host_free(buffer)
                self.driver.destroy_event(event)
            self.driver.destroy_stream(stream)
        return target


class _Current:
    """Makes a device's context current; a class, because a generator costs more than the calls themselves."""

    __slots__ = ("_context", "_driver")

    def __init__(self, driver: Driver, context: Any) -> None:
        self._driver, self._context = driver, context

    def __enter__(self) -> None:
        self._driver.push(self._context)

    def __exit__(self, *error: object) -> None:
        self._driver.pop()


def _plan(file: EngineFile, number: int, arch: str, code_bytes: int) -> CudaPlan:
    """Plan number ``number``, checked."""
    header = file.plan(number)
    check_plan(header, file.blob("weights").nbytes, file.path)
    text = file.blob(launch.blob_of(arch, number)).tobytes()
    largest = [dim.max for dim in header.dims]
    return CudaPlan(header, launch.decode(text, code_bytes, len(header.kernels), file.path, largest))


def _check_device(driver: Driver, device: int, where: str) -> None:
    count = driver.num_devices()
    if not 0 <= device < count:
        raise EngineError(where, f"there is no GPU number {device}", f"this machine has {count}", "choose another device")


def _best_arch(features: tuple[str, ...], driver: Driver, device: int, where: str) -> str:
    """The newest of the architectures in the engine whose machine code this GPU runs: same major version, none newer."""
    mine = driver.arch(device)
    built = sorted(int(f.removeprefix("sm_")) for f in features if f.startswith("sm_"))
    usable = [arch for arch in built if arch // 10 == mine // 10 and arch <= mine]
    if not usable:
        seen = f"it was built for {', '.join(f'sm_{arch}' for arch in built)}"
        remedy = f"build it again with redline build --target cuda:sm_{mine}"
        raise EngineError(where, seen, f"this GPU is sm_{mine} ({driver.name(device)})", remedy)
    return f"sm_{usable[-1]}"


def _close(
    driver: Driver, device: int, context: Any, modules: list[Any], freed: list[int], file: EngineFile, process: int
) -> None:
    file.close()
    if os.getpid() != process:
        return
    driver.push(context)
    for module in modules:
        driver.unload(module)
    for address in freed:
        driver.free(address)
    driver.pop()
    driver.release(device)
