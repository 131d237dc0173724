"""A driver without a GPU: device memory is host memory, and machine code is Triton text that the interpreter runs.

With it an engine goes the whole way from the builder through the file to answers, on any machine. ``as_cubins`` takes the
place of the compiler.
"""

import ctypes
import json
import re
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from cuda_interpreter import Tensor, run

from redline.base.errors import EngineError
from redline.codegen.triton.compile import Cubin, Request

NUMPY = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp64": "float64", "i8": "int8", "i16": "int16",
         "i32": "int32", "i64": "int64", "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
         "fp8e4nv": "float8_e4m3fn"}  # fmt: skip
BYTES = {
    "fp8e4nv": 1,
    "fp32": 4,
    "fp16": 2,
    "bf16": 2,
    "fp64": 8,
    "i8": 1,
    "i16": 2,
    "i32": 4,
    "i64": 8,
    "u8": 1,
    "u16": 2,
    "u32": 4,
    "u64": 8,
}


def as_cubins(requests: Sequence[Request], progress: Any = None) -> list[Cubin]:
    """The text itself in place of machine code."""
    found = []
    for request in requests:
        boxes = [re.search(r"\[(.*)\]", kind) for kind in request.signature if kind.startswith("tensordesc")]
        maps = tuple({"block_size": json.loads(f"[{box[1]}]"), "swizzle": 3} for box in boxes if box)
        code = json.dumps({"text": request.text, "signature": request.signature}).encode()
        found.append(Cubin(code, 0, maps))
    return found


class Map:
    """A tensor map."""

    def __init__(self, *facts: Any) -> None:
        self.facts, self.cell = facts, ctypes.c_int64(id(self))

    def getPtr(self) -> int:
        return ctypes.addressof(self.cell)


class FakeDriver:
    """As much of runtime.cuda.Driver as engines use. ``limit``: the most bytes of device memory."""

    def __init__(self, arch: int = 90, limit: int = 1 << 34) -> None:
        self._arch, self.limit = arch, limit
        self.memory: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.maps: dict[int, Map] = {}
        self.captured: list[tuple[Any, ...]] | None = None
        self.num_loaded = self.num_captured = self.num_direct = self.depth = 0

    num_devices = staticmethod(lambda: 1)
    name = staticmethod(lambda device: "a GPU of tests")
    retain = staticmethod(lambda device: "context")
    stream = event = staticmethod(lambda: object())
    wait = record = release = destroy_stream = destroy_event = destroy_graph = unload = staticmethod(lambda *args: None)
    seconds = staticmethod(lambda begin, end: 1e-6)

    def arch(self, device: int) -> int:
        return self._arch

    def push(self, context: Any) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1

    def alloc(self, num_bytes: int, what: str) -> int:
        if sum(m.nbytes for m in self.memory.values()) + num_bytes > self.limit:
            raise EngineError("cuda", f"the GPU has no memory for {what} ({num_bytes} bytes)")
        raw = np.full(num_bytes + 256, 0xFF, np.uint8)
        address = -(-raw.ctypes.data // 256) * 256
        self.memory[address] = raw
        return address

    def free(self, address: int) -> None:
        del self.memory[address]

    def host_alloc(self, num_bytes: int, what: str) -> int:
        raw = np.zeros(num_bytes, np.uint8)
        self.pinned[raw.ctypes.data] = raw
        return int(raw.ctypes.data)

    def host_free(self, address: int) -> None:
        del self.pinned[address]

    def to_device(self, target: int, source: int, num_bytes: int, stream: Any) -> None:
        ctypes.memmove(target, source, num_bytes)

    to_host = to_device

    def fill(self, target: int, value: int, num_bytes: int, stream: Any) -> None:
        ctypes.memset(target, value, num_bytes)

    def begin_capture(self, stream: Any) -> None:
        self.captured = []
        self.num_captured += 1

    def end_capture(self, stream: Any) -> Any:
        done, self.captured = self.captured, None
        return done

    def launch_graph(self, graph: Any, stream: Any) -> None:
        for text, grid, args, maps in graph:
            run(text, grid, args, maps)

    def load(self, cubin: bytes, shared_bytes: int, what: str) -> tuple[Any, Any]:
        self.num_loaded += 1
        return "module", json.loads(bytes(cubin))

    def tensor_map(self, *facts: Any) -> Map:
        assert facts[-1] == np.dtype(getattr(ml_dtypes, facts[0], facts[0])).itemsize, (
            f"{facts[-1]} bytes an element of {facts[0]}"
        )
        made = Map(*facts)
        self.maps[id(made)] = made
        return made

    def launch(
        self, function: Any, grid: Any, threads: int, shared_bytes: int, params: int, stream: Any, overlap: bool
    ) -> None:
        places = ctypes.cast(params, ctypes.POINTER(ctypes.c_void_p))
        args, maps, at = [], {}, 0
        for number, kind in enumerate(function["signature"]):
            value = ctypes.c_int64.from_address(places[at]).value
            at += 1
            if kind == "i32":
                args.append(ctypes.c_int32.from_address(places[at - 1]).value)
                continue
            element = re.sub(r"tensordesc<|\[.*|\*", "", kind)
            if kind.startswith("tensordesc"):
                _, value, shape, strides, box, *_ = self.maps[value].facts
                maps[number] = (shape, strides, box)
                at += 2 * len(shape)
            args.append(Tensor(value, NUMPY[element], BYTES[element]))
        if self.captured is None:
            self.num_direct += 1
            run(function["text"], grid, args, maps)
        else:
            self.captured.append((function["text"], grid, args, maps))
