"""An inference step by step: what every kernel has written, right after it ran. For finding where answers go wrong."""

import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from redline.base import dtypes
from redline.engine.header import Access, KernelRecord
from redline.runtime.engine import Engine

Written = tuple[KernelRecord, tuple[np.ndarray, ...]]


def trace(engine: Engine, inputs: Mapping[str, Any]) -> Iterator[Written]:
    """Each kernel of ``engine`` in order, with copies of the arrays that it wrote, in the kernel's own layout."""
    header, context = engine.header_at(inputs), engine.context()
    with context.stepping(inputs) as (run, arena, outputs):
        places = [array.__array_interface__["data"][0] for array in outputs]
        for number, kernel in enumerate(header.kernels):
            run(number)
            yield kernel, tuple(_array(header.tensors, access, arena, places) for access in kernel.writes)
    context.close()


def _array(tensors: Any, access: Access, arena: int, outputs: list[int]) -> np.ndarray:
    """A copy of what an access of a kernel addresses."""
    start = outputs[access.tensor] if access.space == "output" else arena + tensors[access.tensor].offset
    kind = dtypes.from_name(access.dtype)
    reach = 1 + sum(stride * (extent - 1) for extent, stride in zip(access.shape, access.strides, strict=True) if extent)
    raw = (ctypes.c_char * (max(reach, 1) * kind.size)).from_address(start + access.offset)
    flat = np.frombuffer(memoryview(raw), kind.numpy)
    strides = tuple(stride * kind.size for stride in access.strides)
    return np.array(np.lib.stride_tricks.as_strided(flat, access.shape, strides))
