"""A CUDA engine's parts on one device: mapped file, primary context, modules, weights. Shared by its contexts.

Code is loaded when a kernel is first launched; weights are copied once, piece by piece through pinned memory, so that
reading the file and copying overlap.
"""

import ctypes
import os
import weakref
from typing import Any

import numpy as np

from redline.base.errors import EngineError
from redline.engine import EngineFile, check_plan, launch
from redline.runtime.cuda.driver import Driver
from redline.runtime.ports import Port

PIECE_BYTES = 32 << 20


class CudaLoaded:
    """Freed when neither an engine nor a context holds it any more."""

    def __init__(self, file: EngineFile, device: int, driver: Driver | None = None) -> None:
        """``file``: open, and owned by this object from here on."""
        try:
            self.path, self.header = file.path, file.header
            check_plan(file.header, file.blob("weights").nbytes, file.path)
            if file.header.variants:
                raise EngineError(self.path, "a CUDA engine with several plans", "allowed: one", "build the engine again")
            self.driver, self.device, self.process = driver or Driver(), device, os.getpid()
            _check_device(self.driver, device, self.path)
            arch = _best_arch(file.header.stamp.features, self.driver, device, self.path)
            self._code = file.blob(f"cubins.{arch}")
            text = file.blob(f"launches.{arch}").tobytes()
            self.launches = launch.decode(text, self._code.nbytes, len(file.header.kernels), self.path)
            self.context = self.driver.retain(device)
        except BaseException:
            file.close()
            raise
        self.functions: dict[int, Any] = {}
        self._modules: list[Any] = []
        self._freed: list[int] = []
        self.inputs = tuple(map(Port, self.header.inputs))
        self.outputs = tuple(map(Port, self.header.outputs))
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

    def function(self, step: int) -> Any:
        """The kernel of a step, loaded now if it is not yet."""
        record = self.launches.launches[step]
        if record.cubin not in self.functions:
            part = self.launches.cubins[record.cubin]
            code = self._code[part.offset : part.offset + part.num_bytes].tobytes()
            shared = max(r.shared_bytes for r in self.launches.launches if r.cubin == record.cubin)
            module, self.functions[record.cubin] = self.driver.load(code, shared, f"kernel {self.header.kernels[step].symbol}")
            self._modules.append(module)
        return self.functions[record.cubin]

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
