"""What an engine file says about itself: ``describe_engine(path)`` gives plain JSON-able facts. No code of it is run."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redline.engine import Header, KernelRecord, open_engine


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
    file.close()
    return {
        "file": str(path),
        "num_bytes": path.stat().st_size,
        "stamp": asdict(header.stamp),
        "inputs": [asdict(io) for io in header.inputs],
        "outputs": [asdict(io) for io in header.outputs],
        "num_threads": header.num_threads,
        "kernels": [_kernel(step, kernel) for step, kernel in enumerate(header.kernels)],
        "memory": _memory(header),
        "parts": {blob.name: blob.num_bytes for blob in header.blobs},
        "report": dict(header.report),
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
