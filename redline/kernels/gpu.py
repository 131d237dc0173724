"""What the GPU side of every kernel family has in common: the target, and a Triton function with its launch.

A family's triton.py takes the same Problem as its c.py and gives the text of one Triton function called KERNEL, in which
all shapes and strides are constants, or expressions of dimensions that a call decides (base/extents.py); some schedules give
CUDA C of the same parameters instead. Its parameters are the read operands, then the written ones: a typed pointer to element
[0, ..., 0], or a tensor map for the copy engine where ``maps`` says so; then, where ``workspace_bytes`` is not 0, a pointer to
a workspace that no other kernel uses at the same time, its first ``counter_bytes`` zero at entry and exit; then the values of
the dimensions that the text names. Grids and tensor maps may hold extents too.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redline.base.dtypes import DType
from redline.base.extents import dims_in
from redline.kernels.problem import Packing

COUNTER_BYTES = 1 << 16  # of every workspace: counters that kernels leave at zero
POINTER = {
    "float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16", "float64": "*fp64", "int64": "*i64", "int32": "*i32",
    "int16": "*i16", "int8": "*i8", "uint64": "*u64", "uint32": "*u32", "uint16": "*u16", "uint8": "*u8", "bool": "*i8",
    "float8_e4m3fn": "*fp8e4nv",
}  # fmt: skip
SHARED_BYTES = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10}  # a block may have, by architecture
PROCESSORS = {80: 108, 86: 84, 89: 128, 90: 132}


@dataclass(frozen=True)
class GpuTarget:
    """An NVIDIA GPU. ``overlap``: kernels may start before the one in front has ended, and wait for its results themselves.

    ``eager``: products let the next kernel start before they have waited themselves, the others after; which is faster
    depends on the model. ``tf32``: float32 products may be rounded to 10 bits of mantissa. ``plain`` gives text that
    Triton's interpreter runs.
    """

    arch: int = 90
    processors: int = 132
    overlap: bool = True
    tf32: bool = True
    plain: bool = False
    eager: bool = False

    @property
    def name(self) -> str:
        return f"cuda:sm_{self.arch}"

    @property
    def shared_bytes(self) -> int:
        return SHARED_BYTES.get(self.arch, 99 << 10)

    @property
    def has_float8(self) -> bool:
        return self.arch >= 89

    @property
    def has_copy_engine(self) -> bool:
        return self.arch >= 90


@dataclass(frozen=True)
class TensorMap:
    """An operand as the copy engine sees it: extents and strides in elements, the last stride 1, in boxes of ``box``."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]


@dataclass(frozen=True)
class GpuCode:
    """The text of KERNEL and how to compile and launch it. ``signature``: Triton's type of each parameter."""

    family: str
    text: str
    signature: tuple[str, ...]
    grid: tuple[Any, Any, Any]
    num_warps: int = 4
    num_stages: int = 2
    workspace_bytes: Any = 0  # an extent where the grid is one
    maps: Mapping[int, TensorMap] = field(default_factory=dict)  # by parameter
    packings: Mapping[int, Packing] = field(default_factory=dict)  # by read operand
    num_chunks: int = 1  # one launch
    language: str = "triton"  # or "cuda": CUDA C for NVRTC, which says itself how much shared memory it takes
    shared_bytes: int = 0

    @property
    def dims(self) -> tuple[int, ...]:
        """The open dimensions whose values are the last parameters, 32-bit integers behind those of ``signature``."""
        return dims_in(self.text)

    @property
    def symbol(self) -> str:
        key = repr((self.text, self.signature, self.num_warps, self.num_stages))
        return f"rl_{self.family}_{hashlib.sha256(key.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class GpuFamily:
    """The GPU half of a family: ``schedules(problem, target)``, the best guess first, and ``render(...)`` to code.

    ``opens``: whether problems of open extents are rendered too; their schedules are those for the tuned shape.
    """

    name: str
    schedules: Callable[[Any, GpuTarget], Sequence[Any]]
    render: Callable[[Any, Any, GpuTarget], GpuCode]
    opens: bool = False


def map_type(dtype: DType, box: Sequence[int]) -> str:
    """Triton's type of a tensor map parameter."""
    return f"tensordesc<{POINTER[dtype.name][1:]}[{', '.join(map(str, box))}]>"


def next_power(value: int) -> int:
    """The lowest power of two that is at least ``value``."""
    return 1 << max(0, value - 1).bit_length()
