"""CUDA engines as files: the header, the launch records and machine code of each architecture, the weights.

Plans share weights, and machine code that is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redline
from redline.base.errors import BuildError
from redline.base.extents import formula, is_open, most_where
from redline.builder.assemble import Assembler
from redline.builder.shapes import Shapes
from redline.builder.weights import Weights
from redline.engine import IO, Header, KernelRecord, Stamp, blob_of, encode_steps, joined, launch, write_engine
from redline.kernels.gpu import GpuTarget
from redline.kernels.problem import num_bytes
from redline.lower import MemoryPlan, Program, Step
from redline.tune.cuda import GpuChoice


@dataclass(frozen=True)
class CudaPlan:
    """The steps for some shapes. ``program``: at the largest; ``opened``: for all; ``chosen``: by architecture.

    ``bands``: by architecture, choices that are better where the product of the dimensions is in a range.
    """

    name: str
    program: Program
    memory: MemoryPlan
    chosen: Mapping[int, Sequence[GpuChoice]]
    opened: Program
    shapes: Shapes | None = None
    bands: Mapping[int, Sequence["Band"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Band:
    """The product of the dimensions is from ``least`` to ``most``."""

    least: int
    most: int
    choices: Sequence[GpuChoice]


class _CudaAssembler(Assembler):
    """Addresses of operands as on the CPU; weights are packed alike for every architecture."""

    def header(self, targets: Sequence[GpuTarget], version: str, report: Mapping[str, Any]) -> Header:
        records = []
        for i, (step, choice) in enumerate(zip(self.program.steps, self.choices, strict=True)):
            accesses = [self._place(view, choice, k)[1] for k, view in enumerate(step.reads + step.writes)]
            records.append(
                KernelRecord(
                    choice.code.symbol,
                    step.family,
                    step.nodes,
                    1,
                    i > 0,
                    tuple(accesses[: len(step.reads)]),
                    tuple(accesses[len(step.reads) :]),
                    step.problem.flops,
                    num_bytes(step.problem),
                    repr(choice.schedule),
                    choice.seconds,
                    step.reason,
                )
            )
        names = tuple(f"sm_{target.arch}" for target in targets)
        stamp = Stamp(f"cuda:{'+'.join(names)}", names, redline.__version__, f"triton {version}")
        inputs, outputs = (
            tuple(IO(name, buffer.dtype.name, shape, self.shapes.terms.get(name, ())) for name, buffer, shape in ports)
            for ports in (self.program.inputs, self.program.outputs)
        )
        arena = self.memory.arena_bytes
        return Header(
            stamp, inputs, outputs, tuple(self.tensors), tuple(records), arena, 0, 1, report, dims=self.shapes.dims
        )  # fmt: skip


class _Code:
    """The machine code for one architecture, each cubin once."""

    def __init__(self, target: GpuTarget) -> None:
        self.target = target
        self.bytes = bytearray()
        self._places: dict[bytes, launch.Part] = {}

    def launches(self, plan: CudaPlan, header: Header) -> launch.Launches:
        """The launch records of a plan, whose code is added."""
        arch = self.target.arch
        bands = plan.bands.get(arch, ())
        choices = [*plan.chosen[arch], *(choice for band in bands for choice in band.choices)]
        parts = tuple(dict.fromkeys(self._place(choice.cubin.code) for choice in choices))
        records = self._records(plan, header, plan.chosen[arch], parts)
        others = tuple(launch.Band(b.least, b.most, self._records(plan, header, b.choices, parts)) for b in bands)
        workspace = max((most_where(choice.code.workspace_bytes, choice.job.most) for choice in choices), default=0)
        return launch.Launches(arch, self.target.overlap, workspace, parts, records, others)

    def _records(
        self, plan: CudaPlan, header: Header, choices: Sequence[GpuChoice], parts: Sequence[launch.Part]
    ) -> tuple[launch.Launch, ...]:
        records = []
        for step, record, choice in zip(plan.opened.steps, header.kernels, choices, strict=True):
            code = choice.code
            records.append(
                launch.Launch(
                    parts.index(self._place(choice.cubin.code)),
                    tuple(map(formula, code.grid)),
                    32 * code.num_warps,
                    choice.cubin.shared_bytes,
                    is_open(code.workspace_bytes) or code.workspace_bytes > 0,
                    _maps(choice),
                    code.dims,
                    _starts(step, record),
                )
            )
        return tuple(records)

    def _place(self, code: bytes) -> launch.Part:
        if code not in self._places:
            self._places[code] = launch.Part(len(self.bytes), len(code))
            self.bytes += code + bytes(-len(code) % 64)
        return self._places[code]


def _starts(step: Step, record: KernelRecord) -> tuple[Any, ...]:
    """Where the operands begin, if the dimensions decide that of one."""
    views, accesses = step.reads + step.writes, record.reads + record.writes
    if not any(is_open(view.offset) for view in views):
        return ()
    return tuple(
        formula(view.offset * view.dtype.size) if is_open(view.offset) else access.offset
        for view, access in zip(views, accesses, strict=True)
    )


def _maps(choice: GpuChoice) -> tuple[launch.MapRecord, ...]:
    """The tensor maps of a launch."""
    found = []
    for (i, m), fact in zip(sorted(choice.code.maps.items()), choice.cubin.maps, strict=True):
        shape, strides = (tuple(map(formula, numbers)) for numbers in (m.shape, m.strides))
        dtype = choice.job.problem.reads[i].dtype.name
        found.append(launch.MapRecord(i, dtype, shape, strides, tuple(fact["block_size"]), fact["swizzle"]))
    return tuple(found)


def write(
    path: Path, plans: Sequence[CudaPlan], targets: Sequence[GpuTarget], version: str, report: Mapping[str, Any],
    limit: int | None,
) -> None:  # fmt: skip
    """Writes the engine of ``plans``; raises BuildError where it needs more than ``limit`` bytes of device memory."""
    weights, codes = Weights(), [_Code(target) for target in targets]
    headers, workspace = [], 0
    blobs: dict[str, Any] = {}
    for number, plan in enumerate(plans):
        first: Any = plan.chosen[targets[-1].arch]
        assembler = _CudaAssembler(plan.program, plan.memory, first, plan.shapes, plan.opened, weights)
        headers.append(replace(assembler.header(targets, version, report), name=plan.name))
        for code in codes:
            records = code.launches(plan, headers[-1])
            workspace = max(workspace, records.workspace_bytes)
            blobs[launch.blob_of(f"sm_{code.target.arch}", number)] = [launch.encode(records)]
    blobs |= {f"cubins.sm_{code.target.arch}": [bytes(code.bytes)] for code in codes}
    blobs |= {blob_of(number): [encode_steps(header)] for number, header in enumerate(headers) if number}
    total = weights.num_bytes + max(header.arena_bytes for header in headers) + workspace
    if limit is not None and total > limit:
        raise BuildError("--memory-limit", f"the engine needs {total} bytes", f"allowed: {limit}", "build for smaller shapes")
    blobs["weights"] = weights.pieces()
    write_engine(path, joined(*headers), blobs)
