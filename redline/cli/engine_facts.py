"""What an engine file says about itself: ``describe_engine(path)`` gives plain JSON-able facts. No code of it is run."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redline.engine import Header, KernelRecord, open_engine
from redline.runtime.ports import Port


@dataclass(frozen=True)
class FamilyTotal:
    """The kernels of one family together. ``seconds`` are those measured when the kernels were chosen."""

    family: str
    kernels: int
    seconds: float
    flops: int
    num_bytes: int


def by_family(kernels: Iterable[KernelRecord]) -> list[FamilyTotal]:
    """The totals of every family, the slowest first."""
    groups: dict[str, list[KernelRecord]] = {}
    for kernel in kernels:
        groups.setdefault(kernel.family, []).append(kernel)
    totals = [
        FamilyTotal(
            family,
            len(group),
            sum(k.seconds or 0.0 for k in group),
            sum(k.flops for k in group),
            sum(k.num_bytes for k in group),
        )
        for family, group in groups.items()
    ]
    return sorted(totals, key=lambda total: -total.seconds)


def describe_engine(path: Path) -> dict[str, Any]:
    """Stamp, inputs, outputs, kernels, memory and report. Raises EngineError for what is no whole engine."""
    file = open_engine(path, verify="lazy")
    header = file.header
    plans = [_plan(file.plan(number)) for number in range(1 + len(header.variants))]
    file.close()
    return {
        "file": str(path),
        "num_bytes": path.stat().st_size,
        "stamp": asdict(header.stamp),
        "inputs": [asdict(io) for io in header.inputs],
        "outputs": [asdict(io) for io in header.outputs],
        "num_threads": header.num_threads,
        **{key: plans[0][key] for key in ("kernels", "memory")},
        "plans": plans if header.variants else [],
        "parts": {blob.name: blob.num_bytes for blob in header.blobs},
        "report": dict(header.report),
    }


def _plan(header: Header) -> dict[str, Any]:
    """What stands in an engine once for each plan."""
    return {
        "name": header.name,
        "inputs": [asdict(io) for io in header.inputs],
        "dims": [asdict(dim) for dim in header.dims],
        "takes": {io.name: Port(io, header.dims).text for io in header.inputs},
        "ranges": {dim.name: f"{dim.min}..{dim.max}" for dim in header.dims if not dim.is_found},
        "kernels": [_kernel(step, kernel) for step, kernel in enumerate(header.kernels)],
        "memory": _memory(header),
        "weight_bytes": sum(tensor.num_bytes for tensor in header.tensors if tensor.space == "weights"),
    }


def _kernel(step: int, kernel: KernelRecord) -> dict[str, Any]:
    return {
        "step": step,
        "family": kernel.family,
        "nodes": list(kernel.nodes),
        "writes": [f"{access.dtype}[{'x'.join(map(str, access.shape)) or 'scalar'}]" for access in kernel.writes],
        "schedule": kernel.schedule,
        "seconds": kernel.seconds,
        "flops": kernel.flops,
        "num_bytes": kernel.num_bytes,
        "num_chunks": kernel.num_chunks,
        "barrier": kernel.barrier,
        "reason": kernel.reason,
    }


def _memory(header: Header) -> dict[str, Any]:
    arena = [asdict(tensor) for tensor in header.tensors if tensor.space == "arena"]
    return {
        "arena_bytes": header.arena_bytes,
        "arena_bytes_without_sharing": sum(tensor["num_bytes"] for tensor in arena),
        "scratch_bytes_per_thread": header.scratch_bytes,
        "arena": arena,
    }
