"""The plans of an engine: the first one stands in the header, the steps of each other one in a blob ``plan.N``.

In memory every plan is a ``Header`` of its own, so that what reads a plan need not know how many there are. Here too is what
all plans together take: the widest range of every axis.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from redline.base.errors import EngineError
from redline.engine.convert import from_json, to_json
from redline.engine.header import IO, Header, KernelRecord, TensorPlan, Variant
from redline.engine.profile import extent


@dataclass(frozen=True)
class Steps:
    """What a plan's blob holds: the fields of ``Header`` of these names."""

    tensors: tuple[TensorPlan, ...]
    kernels: tuple[KernelRecord, ...]
    arena_bytes: int
    scratch_bytes: int


def blob_of(plan: int) -> str:
    """The name of the blob with the steps of plan number ``plan``, which is not the first."""
    return f"plan.{plan}"


def joined(first: Header, *others: Header) -> Header:
    """The header of an engine with these plans; their steps go into blobs."""
    variants = tuple(Variant(other.name, other.inputs, other.outputs, other.dims) for other in others)
    return replace(first, variants=variants)


def encode_steps(header: Header) -> bytes:
    """The blob of a plan."""
    steps = Steps(header.tensors, header.kernels, header.arena_bytes, header.scratch_bytes)
    return json.dumps(to_json(steps), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode_steps(text: bytes, where: str, plan: int) -> Steps:
    """The steps in ``text``; raises EngineError for anything that ``encode_steps`` does not write."""
    try:
        return from_json(Steps, json.loads(text.decode("ascii")), blob_of(plan))
    except (ValueError, RecursionError) as error:
        raise EngineError(where, f"its plans are malformed: {error}", "", "build the engine again") from error


def without_steps(header: Header) -> Iterator[Header]:
    """Every plan as a header; those behind the first lack their steps."""
    yield header
    for number, v in enumerate(header.variants, 1):
        yield replace(
            header, inputs=v.inputs, outputs=v.outputs, dims=v.dims, name=v.name, plan=number, tensors=(), kernels=(),
            arena_bytes=0, scratch_bytes=0,
        )  # fmt: skip


def with_steps(header: Header, steps: Steps) -> Header:
    return replace(
        header, tensors=steps.tensors, kernels=steps.kernels, arena_bytes=steps.arena_bytes, scratch_bytes=steps.scratch_bytes
    )


def spans(header: Header) -> dict[str, tuple[tuple[int, int], ...]]:
    """For each input and output, by name, the least and the most of each axis over all plans."""
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for plan in without_steps(header):
        ends = [dim.min for dim in plan.dims], [dim.max for dim in plan.dims]
        for io in (*plan.inputs, *plan.outputs):
            axes = _axes(io, *ends)
            known = found.get(io.name, axes)
            found[io.name] = tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(axes, known, strict=True))
    return found


def _axes(io: IO, least: list[int], most: list[int]) -> tuple[tuple[int, int], ...]:
    if not io.extents:
        return tuple((axis, axis) for axis in io.shape)
    return tuple((extent(terms, least), extent(terms, most)) for terms in io.extents)
