"""What a request and a response are once they have left the wire: data types, tensors, requests. Frozen, free of protocols."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from redline.base import dtypes, shapes

BYTES = "BYTES"
NUMPY: dict[str, np.dtype] = {d.v2: d.numpy for d in dtypes.ALL} | {BYTES: np.dtype(object)}
V2_OF = {numpy_type: name for name, numpy_type in NUMPY.items()}
V2_NAMES = tuple(sorted(NUMPY))
Arrays = Mapping[str, np.ndarray]
Parameters = Mapping[str, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model. -1 is any extent; a batching model's first extent is -1, the batch."""

    name: str
    datatype: str
    shape: Shape
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.datatype} {shapes.text(self.shape)}"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array; elements of BYTES tensors are Python bytes in an object array."""

    name: str
    datatype: str
    array: np.ndarray

    @property
    def shape(self) -> Shape:
        return self.array.shape


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of a registered shared memory region: ``num_bytes`` from ``offset`` on."""

    name: str
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that the caller asks for. ``classes`` > 0: the so many best classes instead of the values."""

    name: str
    classes: int = 0
    binary: bool = False
    region: Region | None = None


@dataclass(slots=True)
class InferRequest:
    """One inference, decoded. ``timeout_us`` 0: none given. ``outputs`` empty: all of them. Nobody changes one."""

    model: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Wanted, ...] = ()
    id: str = ""
    priority: int = 0
    timeout_us: int = 0
    parameters: Parameters = field(default_factory=dict)
    trace: "Any | None" = None


@dataclass(slots=True)
class InferResponse:
    """The answer, in the order of the outputs asked for. Nobody changes one."""

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]


Result = InferResponse | BaseException
Deliver = Callable[[Result], None]
