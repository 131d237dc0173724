"""The one table of data types: what each is called in ONNX, numpy and C, and how wide it is.

The types that numpy lacks come from ml_dtypes, which is imported where one of them is met: most engines have none.
"""

import importlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from redline.base.errors import RedlineError, closest


@dataclass(frozen=True)
class DType:
    """An element type. Two DTypes are the same type exactly when their names are equal."""

    name: str
    onnx: int = field(compare=False)  # the number of onnx.TensorProto.DataType
    c: str = field(compare=False)  # the type of one element in generated C
    kind: str = field(compare=False)  # "f" floating, "i" signed, "u" unsigned, "b" boolean
    v2: str = field(compare=False)  # the name in the KServe v2 protocol; "" where it has none
    foreign: bool = field(compare=False, default=False)  # one of ml_dtypes

    @cached_property
    def numpy(self) -> np.dtype:
        return np.dtype(getattr(importlib.import_module("ml_dtypes"), self.name) if self.foreign else self.name)

    @property
    def size(self) -> int:
        """Bytes of one element in memory (the 4-bit types take a whole byte)."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    def __repr__(self) -> str:
        return self.name


float32 = DType("float32", 1, "float", "f", "FP32")
uint8 = DType("uint8", 2, "uint8_t", "u", "UINT8")
int8 = DType("int8", 3, "int8_t", "i", "INT8")
uint16 = DType("uint16", 4, "uint16_t", "u", "UINT16")
int16 = DType("int16", 5, "int16_t", "i", "INT16")
int32 = DType("int32", 6, "int32_t", "i", "INT32")
int64 = DType("int64", 7, "int64_t", "i", "INT64")
bool_ = DType("bool", 9, "uint8_t", "b", "BOOL")
float16 = DType("float16", 10, "rl_half", "f", "FP16")
float64 = DType("float64", 11, "double", "f", "FP64")
uint32 = DType("uint32", 12, "uint32_t", "u", "UINT32")
uint64 = DType("uint64", 13, "uint64_t", "u", "UINT64")
bfloat16 = DType("bfloat16", 16, "rl_bf16", "f", "BF16", foreign=True)
float8_e4m3fn = DType("float8_e4m3fn", 17, "", "f", "", foreign=True)  # 4 bits of exponent, 3 of mantissa, no infinity

ALL = (float32, uint8, int8, uint16, int16, int32, int64, bool_, float16, float64, uint32, uint64, bfloat16)
GPU_ONLY = (float8_e4m3fn,)  # what kernels of processors do not take
NARROW_FLOATS = (float16, bfloat16, float8_e4m3fn)  # computed with in float32
BY_NAME = {d.name: d for d in (*ALL, *GPU_ONLY)}
BY_ONNX = {d.onnx: d for d in (*ALL, *GPU_ONLY)}


def from_name(name: str) -> DType:
    """The type called ``name``; raises RedlineError with the closest name for an unknown one."""
    if name not in BY_NAME:
        raise RedlineError("dtype", f"unknown data type {name!r}", closest(name, BY_NAME))
    return BY_NAME[name]


def from_numpy(dtype: np.dtype | type) -> DType:
    """The type of a numpy array's elements; raises RedlineError for strings, objects, complex numbers and the like."""
    key = np.dtype(dtype)
    found = BY_NAME.get(key.name)
    if found is None or found.numpy != key:
        raise RedlineError("dtype", f"numpy type {key} has no counterpart", closest(str(key), BY_NAME))
    return found
