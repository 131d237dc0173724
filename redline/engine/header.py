"""What an engine says about itself, as frozen dataclasses, and their one JSON form."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redline.base.errors import EngineError
from redline.engine.convert import from_json, to_json

FORMAT = 5
ALIGNMENT = 64


@dataclass(frozen=True)
class Stamp:
    """What the engine was made for and by. ``features``: the processor flags without which it must not run."""

    target: str
    features: tuple[str, ...]
    builder: str
    toolchain: str


@dataclass(frozen=True)
class OpenDim:
    """A dimension that each call decides, from ``min`` to ``max``; the schedules were chosen at ``opt``.

    ``step``: the step that finds it, for one that depends on data; -1 for one that the shapes of the inputs say.
    """

    name: str
    min: int
    opt: int
    max: int
    step: int = -1

    @property
    def is_found(self) -> bool:
        return self.step >= 0


@dataclass(frozen=True)
class IO:
    """An input or output of the engine. ``shape``: the largest.

    ``extents`` is empty where the shape is always that. Else it gives each axis as a sum of terms: a term is a factor and
    the power of each of ``Header.dims`` by which it is multiplied.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    extents: tuple[tuple[tuple[int, ...], ...], ...] = ()


@dataclass(frozen=True)
class TensorPlan:
    """The place of a tensor in ``space`` ("arena" or "weights"), its own from ``first_step`` to ``last_step``."""

    name: str
    space: str
    offset: int
    num_bytes: int
    first_step: int
    last_step: int


@dataclass(frozen=True)
class Access:
    """A strided view that a kernel reads or writes.

    ``tensor`` counts in ``Header.tensors`` (spaces "arena" and "weights"), in ``inputs`` ("input") or in ``outputs``
    ("output"). ``offset``: bytes from the start of that tensor to element [0, ..., 0]. ``strides`` in elements.
    """

    space: str
    tensor: int
    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class KernelRecord:
    """One step. ``nodes``: the names of the model's nodes in it. ``seconds``: as measured when it was chosen."""

    symbol: str
    family: str
    nodes: tuple[str, ...]
    num_chunks: int
    barrier: bool
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    flops: int
    num_bytes: int
    schedule: str
    seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Blob:
    """A part of the file, ``offset`` bytes from the first one.

    For each 4 MiB block a SHA-256 and a quick checksum (checksum.py), both in hexadecimal.
    """

    name: str
    offset: int
    num_bytes: int
    sha256: tuple[str, ...]
    checksums: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """One more plan of the engine, for other shapes of the same inputs and outputs; its steps are a blob (variants.py)."""

    name: str
    inputs: tuple[IO, ...]
    outputs: tuple[IO, ...]
    dims: tuple[OpenDim, ...]


@dataclass(frozen=True)
class Header:
    """Everything but the blobs, of the engine's first plan. ``blobs`` is filled in by the writer; ``report`` is for people.

    ``variants``: the other plans; ``name`` tells this one from them, and ``plan`` is its number.
    """

    stamp: Stamp
    inputs: tuple[IO, ...]
    outputs: tuple[IO, ...]
    tensors: tuple[TensorPlan, ...]
    kernels: tuple[KernelRecord, ...]
    arena_bytes: int
    scratch_bytes: int
    num_threads: int
    report: Mapping[str, Any] = field(default_factory=dict)
    blobs: tuple[Blob, ...] = ()
    dims: tuple[OpenDim, ...] = ()
    name: str = ""
    plan: int = 0
    variants: tuple[Variant, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the shapes of a call decide something in this plan."""
        return any(not dim.is_found for dim in self.dims)


def encode(header: Header) -> bytes:
    """The JSON of a header: the same header gives the same bytes. Raises ValueError for NaN or infinity in it."""
    return json.dumps(to_json(header), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(text: bytes, where: str) -> Header:
    """The header in ``text``; raises EngineError for anything that ``encode`` does not write."""
    try:
        return from_json(Header, json.loads(text.decode("ascii"), parse_constant=_refuse))
    except (ValueError, RecursionError) as error:
        raise EngineError(where, f"its header is malformed: {error}", "", "build the engine again") from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not allowed")
