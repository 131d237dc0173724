"""CUDA engines as files: the header, the launch records and machine code of each architecture, the weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redline
from redline.base.errors import BuildError
from redline.builder.assemble import Assembler
from redline.engine import IO, Header, KernelRecord, Stamp, launch, write_engine
from redline.kernels.gpu import GpuTarget
from redline.kernels.problem import num_bytes
from redline.lower import MemoryPlan, Program
from redline.tune.cuda import GpuChoice


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
        inputs = tuple(IO(name, buffer.dtype.name, shape) for name, buffer, shape in self.program.inputs)
        outputs = tuple(IO(name, buffer.dtype.name, shape) for name, buffer, shape in self.program.outputs)
        return Header(stamp, inputs, outputs, tuple(self.tensors), tuple(records), self.memory.arena_bytes, 0, 1, report)


def launches_of(choices: Sequence[GpuChoice], target: GpuTarget) -> tuple[launch.Launches, bytes]:
    """The launch records and the machine code, each cubin once."""
    places: dict[bytes, int] = {}
    parts: list[launch.Part] = []
    code = bytearray()
    records = []
    for choice in choices:
        cubin = choice.cubin
        if cubin.code not in places:
            places[cubin.code] = len(parts)
            parts.append(launch.Part(len(code), len(cubin.code)))
            code += cubin.code + bytes(-len(cubin.code) % 64)
        maps = tuple(
            launch.MapRecord(
                i, choice.job.problem.reads[i].dtype.name, m.shape, m.strides, tuple(fact["block_size"]), fact["swizzle"]
            )
            for (i, m), fact in zip(sorted(choice.code.maps.items()), cubin.maps, strict=True)
        )
        records.append(
            launch.Launch(
                places[cubin.code],
                choice.code.grid,
                32 * choice.code.num_warps,
                cubin.shared_bytes,
                choice.code.workspace_bytes > 0,
                maps,
            )
        )
    workspace = max((choice.code.workspace_bytes for choice in choices), default=0)
    return launch.Launches(target.arch, target.overlap, workspace, tuple(parts), tuple(records)), bytes(code)


def write(
    path: Path, program: Program, memory: MemoryPlan, targets: Sequence[GpuTarget], chosen: Mapping[int, Sequence[GpuChoice]],
    version: str, report: Mapping[str, Any], limit: int | None,
) -> None:  # fmt: skip
    first: Any = chosen[targets[-1].arch]
    assembler = _CudaAssembler(program, memory, first)
    header = assembler.header(targets, version, report)
    blobs: dict[str, Any] = {}
    workspace = 0
    for target in targets:
        records, code = launches_of(chosen[target.arch], target)
        workspace = max(workspace, records.workspace_bytes)
        blobs[f"launches.sm_{target.arch}"] = [launch.encode(records)]
        blobs[f"cubins.sm_{target.arch}"] = [code]
    total = assembler.weights.num_bytes + header.arena_bytes + workspace
    if limit is not None and total > limit:
        raise BuildError("--memory-limit", f"the engine needs {total} bytes", f"allowed: {limit}", "build for smaller shapes")
    blobs["weights"] = assembler.weights.pieces()
    write_engine(path, header, blobs)
