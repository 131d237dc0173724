"""The CUDA driver as a handful of calls that return values and raise EngineError; the only module that knows cuda-bindings.

All sizes are bytes, all addresses integers. Calls act on the context that ``push`` made current in the calling thread.
"""

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

from redline.base.errors import EngineError

OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
LOST = frozenset(
    {"CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_LAUNCH_FAILED", "CUDA_ERROR_ECC_UNCORRECTABLE", "CUDA_ERROR_DEVICE_UNAVAILABLE"}
)
MAP_TYPES = {
    "float16": "FLOAT16", "bfloat16": "BFLOAT16", "float32": "FLOAT32", "int8": "UINT8", "uint8": "UINT8", "int32": "INT32",
    "float8_e4m3fn": "UINT8",
}  # fmt: skip


class Driver:
    """The loaded driver. Raises EngineError where there is none."""

    def __init__(self) -> None:
        try:
            self.api: Any = importlib.import_module("cuda.bindings.driver")
        except ImportError as error:
            remedy = "pip install 'redline[cuda]'"
            raise EngineError("cuda", "the package cuda-bindings is not installed", "CUDA engines need it", remedy) from error
        try:
            self._call("cuInit", 0, what="the driver")
        except RuntimeError as error:  # cuda-bindings, when there is no libcuda
            remedy = "run on a machine with an NVIDIA GPU and its driver"
            raise EngineError("cuda", f"the NVIDIA driver cannot be loaded: {error}", "", remedy) from error
        self._overlap = self._overlapping()

    def _overlapping(self) -> Any:
        """The attribute of a kernel that may start before the one in front ends."""
        attribute = self.api.CUlaunchAttribute()
        attribute.id = self.api.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        value = self.api.CUlaunchAttributeValue()
        value.programmaticStreamSerializationAllowed = 1
        attribute.value = value
        return attribute

    def _call(self, name: str, *args: Any, what: str) -> Any:
        result = getattr(self.api, name)(*args)
        if result[0].value:
            self._fail(result[0].name, name, what)
        return result[1] if len(result) == 2 else result[1:]

    @staticmethod
    def _fail(error: str, call: str, what: str) -> None:
        if error == OUT_OF_MEMORY:
            raise EngineError("cuda", f"the GPU has no memory for {what}", "", "free memory, or build for smaller shapes")
        if error in LOST:
            remedy = "the context is lost: start the process again"
            raise EngineError("cuda", f"the GPU stopped during {what} ({error})", "", remedy)
        raise EngineError("cuda", f"{call} failed for {what}: {error}")

    # devices

    def num_devices(self) -> int:
        return int(self._call("cuDeviceGetCount", what="the devices"))

    def arch(self, device: int) -> int:
        kind = self.api.CUdevice_attribute
        major, minor = (
            self._call(
                "cuDeviceGetAttribute", getattr(kind, f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}"), device, what="it"
            )
            for part in ("MAJOR", "MINOR")
        )
        return int(major) * 10 + int(minor)

    def processors(self, device: int) -> int:
        kind = self.api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
        return int(self._call("cuDeviceGetAttribute", kind, device, what="the device"))

    def name(self, device: int) -> str:
        return str(self._call("cuDeviceGetName", 128, device, what="the device").split(b"\0")[0].decode())

    def version(self) -> int:
        """13000 for CUDA 13.0."""
        return int(self._call("cuDriverGetVersion", what="the driver"))

    def retain(self, device: int) -> Any:
        """The device's primary context, which other libraries of the process share."""
        return self._call("cuDevicePrimaryCtxRetain", device, what=f"the context of device {device}")

    def release(self, device: int) -> None:
        self._call("cuDevicePrimaryCtxRelease", device, what="the context")

    def push(self, context: Any) -> None:
        self._call("cuCtxPushCurrent", context, what="the context")

    def pop(self) -> None:
        self._call("cuCtxPopCurrent", what="the context")

    # memory

    def alloc(self, num_bytes: int, what: str) -> int:
        return int(self._call("cuMemAlloc", max(1, num_bytes), what=f"{what} ({num_bytes} bytes)"))

    def free(self, address: int) -> None:
        self._call("cuMemFree", address, what="device memory")

    def host_alloc(self, num_bytes: int, what: str) -> int:
        """Pinned memory of the host."""
        return int(self._call("cuMemHostAlloc", max(1, num_bytes), 0, what=f"{what} ({num_bytes} bytes of pinned memory)"))

    def host_free(self, address: int) -> None:
        self._call("cuMemFreeHost", address, what="pinned memory")

    def to_device(self, target: int, source: int, num_bytes: int, stream: Any) -> None:
        if num_bytes:
            self._call("cuMemcpyHtoDAsync", target, source, num_bytes, stream, what="a copy to the device")

    def to_host(self, target: int, source: int, num_bytes: int, stream: Any) -> None:
        if num_bytes:
            self._call("cuMemcpyDtoHAsync", target, source, num_bytes, stream, what="a copy from the device")

    def fill(self, target: int, value: int, num_bytes: int, stream: Any) -> None:
        if num_bytes:
            self._call("cuMemsetD8Async", target, value, num_bytes, stream, what="device memory")

    # streams, events, graphs

    def stream(self) -> Any:
        return self._call("cuStreamCreate", 1, what="a stream")  # does not wait for the default stream

    def destroy_stream(self, stream: Any) -> None:
        self._call("cuStreamDestroy", stream, what="a stream")

    def wait(self, stream: Any) -> None:
        self._call("cuStreamSynchronize", stream, what="an inference")

    def event(self) -> Any:
        return self._call("cuEventCreate", 0, what="an event")

    def record(self, event: Any, stream: Any) -> None:
        self._call("cuEventRecord", event, stream, what="an event")

    def seconds(self, begin: Any, end: Any) -> float:
        """Between two recorded events; waits for the second."""
        self._call("cuEventSynchronize", end, what="an event")
        return float(self._call("cuEventElapsedTime", begin, end, what="events")) / 1e3

    def destroy_event(self, event: Any) -> None:
        self._call("cuEventDestroy", event, what="an event")

    def begin_capture(self, stream: Any) -> None:
        mode = self.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode, what="a graph")

    def end_capture(self, stream: Any) -> Any:
        """What was captured, ready to be launched."""
        graph = self._call("cuStreamEndCapture", stream, what="a graph")
        try:
            return self._call("cuGraphInstantiate", graph, 0, what="a graph")
        finally:
            self._call("cuGraphDestroy", graph, what="a graph")

    def launch_graph(self, graph: Any, stream: Any) -> None:
        self._call("cuGraphLaunch", graph, stream, what="an inference")

    def destroy_graph(self, graph: Any) -> None:
        self._call("cuGraphExecDestroy", graph, what="a graph")

    # kernels

    def load(self, cubin: bytes, shared_bytes: int, what: str) -> tuple[Any, Any]:
        """The module of a cubin and its function KERNEL, allowed ``shared_bytes`` of shared memory."""
        module = self._call("cuModuleLoadData", cubin, what=what)
        function = self._call("cuModuleGetFunction", module, b"KERNEL", what=what)
        if shared_bytes > 48 << 10:
            kind = self.api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._call("cuFuncSetAttribute", function, kind, shared_bytes, what=what)
        return module, function

    def unload(self, module: Any) -> None:
        self._call("cuModuleUnload", module, what="code")

    def launch(
        self, function: Any, grid: Sequence[int], threads: int, shared_bytes: int, params: int, stream: Any, overlap: bool
    ) -> None:
        """``params``: the address of an array of pointers to the parameters."""
        if not overlap:
            self._call("cuLaunchKernel", function, *grid, threads, 1, 1, shared_bytes, stream, params, 0, what="a kernel")
            return
        config = self.api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes, config.hStream = shared_bytes, stream
        config.attrs, config.numAttrs = [self._overlap], 1
        self._call("cuLaunchKernelEx", config, function, params, 0, what="a kernel")

    def tensor_map(
        self,
        dtype: str,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
        box: Sequence[int],
        swizzle: int,
        size: int,
    ) -> Any:
        """A tensor map; extents, strides (elements of ``size`` bytes) and box outermost first."""
        api = self.api
        kind = getattr(api.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{MAP_TYPES[dtype]}")
        rank = len(shape)
        wide, narrow = api.cuuint64_t, api.cuuint32_t
        return self._call(
            "cuTensorMapEncodeTiled", kind, rank, address, [wide(e) for e in reversed(shape)],
            [wide(s * size) for s in list(reversed(strides))[1:]], [narrow(b) for b in reversed(box)], [narrow(1)] * rank,
            api.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE, api.CUtensorMapSwizzle(swizzle),
            api.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            api.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE, what="a tensor map",
        )  # fmt: skip


class Params:
    """The parameters of one launch in host memory, as the driver wants them: an array of pointers, at ``address``.

    Every number has eight bytes, of which a 32-bit parameter reads the lower four. Two arrays are all that is made: a new
    shape sets up every kernel anew, and objects for each number would take most of that time.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._maps: dict[int, Any] = {}  # by parameter

    def pointer(self, address: int) -> None:
        self._numbers.append(address)

    number = pointer

    def map(self, tensor_map: Any, shape: Sequence[int], strides: Sequence[int]) -> None:
        """A tensor map, and its extents and strides, which Triton's kernels take beside it."""
        self._maps[len(self._numbers)] = tensor_map
        self._numbers += [0, *shape, *strides]

    def close(self) -> int:
        """Adds the two scratch pointers that every Triton kernel ends with; gives the address."""
        count = len(self._numbers) + 2
        self._values = (ctypes.c_int64 * count)(*self._numbers, 0, 0)
        start = ctypes.addressof(self._values)
        places = list(range(start, start + 8 * count, 8))
        for parameter, tensor_map in self._maps.items():
            places[parameter] = int(tensor_map.getPtr())
        self._array = (ctypes.c_void_p * count)(*places)
        return ctypes.addressof(self._array)
