"""How a CUDA engine's kernels are launched: the JSON of the blobs ``launches.sm_NN``, beside the machine code ``cubins.sm_NN``.

Step i of a plan is launch i. Its parameters are the addresses of the step's reads, then of its writes; where ``maps``
names one, a tensor map of that operand instead; then, if ``workspace``, the address of the context's workspace; then the
values of ``dims``, 32-bit integers. Numbers that the dimensions decide are formulas (formula.py).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from redline.base.errors import EngineError
from redline.engine import formula
from redline.engine.convert import from_json, to_json


@dataclass(frozen=True)
class MapRecord:
    """Parameter ``parameter`` is a tensor map: extents and strides (in elements) of the operand, the box, the swizzle."""

    parameter: int
    dtype: str
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    box: tuple[int, ...]
    swizzle: int


@dataclass(frozen=True)
class Launch:
    """One kernel: ``cubin`` counts in ``Launches.cubins``.

    ``dims``: the dimensions that it is told. ``starts``: empty, or for each of the step's reads and writes the bytes from the
    start of its tensor to element [0, ..., 0], which the header has for the largest shape only.
    """

    cubin: int
    grid: tuple[Any, ...]
    threads: int
    shared_bytes: int
    workspace: bool
    maps: tuple[MapRecord, ...]
    dims: tuple[int, ...] = ()
    starts: tuple[Any, ...] = ()

    def grid_at(self, dims: Sequence[int]) -> tuple[int, ...]:
        return tuple([axis if type(axis) is int else formula.value(axis, dims) for axis in self.grid])


@dataclass(frozen=True)
class Band:
    """The launches of calls the product of whose dimensions is from ``least`` to ``most``, chosen for such sizes."""

    least: int
    most: int
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class Part:
    """A cubin's place in the blob of machine code."""

    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Launches:
    """``overlap``: kernels wait for the one in front themselves, so that they may be started before it ends.

    ``launches``: those of calls of which no one of ``bands`` speaks.
    """

    arch: int
    overlap: bool
    workspace_bytes: int
    cubins: tuple[Part, ...]
    launches: tuple[Launch, ...]
    bands: tuple[Band, ...] = ()

    def at(self, dims: Sequence[int]) -> tuple[Launch, ...]:
        """The launches of a call, step by step, where the dimensions have the values ``dims``."""
        size = prod(dims)
        return next((band.launches for band in self.bands if band.least <= size <= band.most), self.launches)

    @property
    def all(self) -> tuple[Launch, ...]:
        return (*self.launches, *(launch for band in self.bands for launch in band.launches))


def blob_of(arch: str, plan: int) -> str:
    """The name of the blob with the launches of plan number ``plan``; ``arch`` as in ``sm_90``."""
    return f"launches.{arch}.{plan}" if plan else f"launches.{arch}"


def encode(launches: Launches) -> bytes:
    return json.dumps(to_json(launches), sort_keys=True, separators=(",", ":")).encode("ascii")


def decode(text: bytes, code_bytes: int, num_steps: int, where: str, largest: Sequence[int] = ()) -> Launches:
    """The launches in ``text``, checked against the length of the machine code; raises EngineError for anything else.

    ``largest``: the most that each dimension of the plan may be.
    """
    try:
        found = from_json(Launches, json.loads(text.decode("ascii")), "launches")
        _check(found, code_bytes, num_steps, largest)
    except (ValueError, RecursionError, ZeroDivisionError) as error:
        raise EngineError(where, f"its launches are malformed: {error}", "", "build the engine again") from error
    return found


def _check(found: Launches, code_bytes: int, num_steps: int, largest: Sequence[int]) -> None:
    for launches in (found.launches, *(band.launches for band in found.bands)):
        if len(launches) != num_steps:
            raise ValueError(f"{len(launches)} launches for {num_steps} steps")
    if any(not 0 <= part.offset <= part.offset + part.num_bytes <= code_bytes for part in found.cubins):
        raise ValueError("machine code lies outside its blob")
    if not 0 <= found.workspace_bytes < 1 << 40:
        raise ValueError(f"a workspace of {found.workspace_bytes} bytes")
    for launch in found.all:
        _check_formulas(launch, len(largest))
        sane = len(launch.grid) == 3 and 0 < launch.threads <= 1024
        sane = sane and all(0 < g < 1 << 31 for dims in (largest, [1] * len(largest)) for g in launch.grid_at(dims))
        if not sane or not 0 <= launch.cubin < len(found.cubins) or not 0 <= launch.shared_bytes < 1 << 20:
            raise ValueError(f"a launch of grid {launch.grid}, {launch.threads} threads, code {launch.cubin}")


def _check_formulas(launch: Launch, num_dims: int) -> None:
    for each in (*launch.grid, *launch.starts, *(n for m in launch.maps for n in (*m.shape, *m.strides))):
        formula.check(each, num_dims)
    if any(not 0 <= dim < num_dims for dim in launch.dims):
        raise ValueError(f"a launch that is told dimensions {launch.dims} of {num_dims}")
