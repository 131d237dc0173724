"""How a CUDA engine's kernels are launched: the JSON of the blobs ``launches.sm_NN``, beside the machine code ``cubins.sm_NN``.

Step i of the header is launch i. Its parameters are the addresses of the step's reads, then of its writes; where ``maps``
names one, a tensor map of that operand instead; then, if ``workspace``, the address of the context's workspace.
"""

import json
from dataclasses import dataclass

from redline.base.errors import EngineError
from redline.engine.convert import from_json, to_json


@dataclass(frozen=True)
class MapRecord:
    """Parameter ``parameter`` is a tensor map: extents and strides (in elements) of the operand, the box, the swizzle."""

    parameter: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int


@dataclass(frozen=True)
class Launch:
    """One kernel: ``cubin`` counts in ``Launches.cubins``."""

    cubin: int
    grid: tuple[int, ...]
    threads: int
    shared_bytes: int
    workspace: bool
    maps: tuple[MapRecord, ...]


@dataclass(frozen=True)
class Part:
    """A cubin's place in the blob of machine code."""

    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Launches:
    """``overlap``: kernels wait for the one in front themselves, so that they may be started before it ends."""

    arch: int
    overlap: bool
    workspace_bytes: int
    cubins: tuple[Part, ...]
    launches: tuple[Launch, ...]


def encode(launches: Launches) -> bytes:
    return json.dumps(to_json(launches), sort_keys=True, separators=(",", ":")).encode("ascii")


def decode(text: bytes, code_bytes: int, num_steps: int, where: str) -> Launches:
    """The launches in ``text``, checked against the length of the machine code; raises EngineError for anything else."""
    try:
        found = from_json(Launches, json.loads(text.decode("ascii")), "launches")
        _check(found, code_bytes, num_steps)
    except (ValueError, RecursionError) as error:
        raise EngineError(where, f"its launches are malformed: {error}", "", "build the engine again") from error
    return found


def _check(found: Launches, code_bytes: int, num_steps: int) -> None:
    if len(found.launches) != num_steps:
        raise ValueError(f"{len(found.launches)} launches for {num_steps} steps")
    if any(not 0 <= part.offset <= part.offset + part.num_bytes <= code_bytes for part in found.cubins):
        raise ValueError("machine code lies outside its blob")
    if not 0 <= found.workspace_bytes < 1 << 40:
        raise ValueError(f"a workspace of {found.workspace_bytes} bytes")
    for launch in found.launches:
        sane = len(launch.grid) == 3 and all(0 < g < 1 << 31 for g in launch.grid) and 0 < launch.threads <= 1024
        if not sane or not 0 <= launch.cubin < len(found.cubins) or not 0 <= launch.shared_bytes < 1 << 20:
            raise ValueError(f"a launch of grid {launch.grid}, {launch.threads} threads, code {launch.cubin}")
