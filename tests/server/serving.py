"""What the server's tests share: model folders, engines of a small network, and a server in a thread."""

import asyncio
import functools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper, numpy_helper

import redline
from redline.server.app import Options, Server
from redline.server.program import Loader, Progress, Ran, with_batch

FEATURES, CLASSES = 16, 8
RNG = np.random.default_rng(7)
WEIGHTS = RNG.standard_normal((FEATURES, CLASSES)).astype(np.float32)

IDENTITY = """backend: "identity"
max_batch_size: 8
input [ {{ name: "INPUT0" data_type: TYPE_{0} dims: [ -1 ] }} ]
output [ {{ name: "OUTPUT0" data_type: TYPE_{0} dims: [ -1 ] }} ]
dynamic_batching {{ }}
"""


def expected(x: np.ndarray, shift: float = 0.0) -> np.ndarray:
    return x @ WEIGHTS + np.arange(CLASSES, dtype=np.float32) + np.float32(shift)


def network(shift: float = 0.0) -> onnx.ModelProto:
    """x[n, 16] -> y[n, 8] = x w + b, with an open batch."""
    bias = np.arange(CLASSES, dtype=np.float32) + np.float32(shift)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@functools.cache
def engine_bytes(batch: int, shift: float = 0.0) -> bytes:
    """The engine of ``network`` for one batch extent."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.engine"
        redline.build(network(shift), output=path, shapes={"x": (batch, FEATURES)}, opt_level=0).close()
        return path.read_bytes()


def add_identity(root: Path, name: str, datatype: str, config: str = "") -> Path:
    folder = root / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config or IDENTITY.format(datatype))
    return folder


def add_network(
    root: Path, name: str = "network", batches: Sequence[int] = (1, 4, 8), config: str = "", version: int = 1,
    shift: float = 0.0,
) -> Path:  # fmt: skip
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    for batch in batches:
        (folder / f"model.b{batch}.engine").write_bytes(engine_bytes(batch, shift))
    if config:
        (root / name / "config.pbtxt").write_text(config)
    return root / name


class Running:
    """A server on free ports, in a thread with an event loop of its own."""

    def __init__(self, root: Path, backends: Mapping[str, Loader] | None = None, **options: Any) -> None:
        settings = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, "grace_s": 20.0, **options}
        self._options, self._backends = Options((root,), **settings), backends
        self._up = threading.Event()
        self._stopped = False
        self.failures: list[str] = []
        self.clean = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._up.wait(120)
        if self._error:
            raise self._error

    async def _serve(self) -> None:
        self.loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        try:
            self.server = Server(self._options, self._backends)
            self.failures = await self.server.start()
        except BaseException as error:
            self._error = error
            self._up.set()
            return
        self._up.set()
        await self._end.wait()
        self.clean = await self.server.stop()

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.server.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs something on the server's loop: a coroutine's result, or a plain value."""

        async def run() -> Any:
            value = function()
            return await value if asyncio.iscoroutine(value) else value

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)

    def begin_stop(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)

    def stop(self) -> bool:
        if not self._stopped:
            self._stopped = True
            self.begin_stop()
            self._thread.join(60)
        return self.clean


@contextmanager
def running(root: Path, backends: Mapping[str, Loader] | None = None, **options: Any) -> Iterator[Running]:
    server = Running(root, backends, **options)
    try:
        yield server
    finally:
        server.stop()


class Scripted:
    """A backend for tests: y = 2 x, with ``behave(batch)`` called first, which may sleep or raise."""

    def __init__(self, behave: Callable[[Sequence[Mapping[str, np.ndarray]]], None] = lambda batch: None) -> None:
        self.behave = behave
        self.batches: list[int] = []

    def load(self, config: Any, folder: Path, progress: Progress) -> "_ScriptedProgram":
        return _ScriptedProgram(self, config)


class _ScriptedProgram:
    brief = False
    typical: Mapping[str, tuple[int, ...]] = {}

    def __init__(self, script: Scripted, config: Any) -> None:
        self._script = script
        self.inputs = with_batch(config.inputs, config.max_batch_size)
        self.outputs = with_batch(config.outputs, config.max_batch_size)
        self.max_batch_size, self.sizes = config.max_batch_size, (max(1, config.max_batch_size),)

    def instance(self, threads: int, isolated: bool) -> "_ScriptedProgram":
        return self

    def run(self, batch: Sequence[Mapping[str, np.ndarray]]) -> Ran:
        if any(array.any() for arrays in batch for array in arrays.values()):  # not the zeros that loading measures with
            self._script.batches.append(len(batch))
            self._script.behave(batch)
        return Ran([{self.outputs[0].name: 2 * arrays[self.inputs[0].name]} for arrays in batch])

    def close(self) -> None:
        pass


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
