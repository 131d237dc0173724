"""From a lowered and tuned program to the parts of an engine: step table, weights and header."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redline
from redline.base.extents import high, is_open
from redline.builder.shapes import Shapes
from redline.builder.weights import Placed, Weights
from redline.codegen.c import isa
from redline.codegen.c.plan import Plan, Ref, Space
from redline.codegen.c.plan import Step as PlanStep
from redline.codegen.c.toolchain import Toolchain
from redline.engine.header import IO, Access, Header, KernelRecord, Stamp, TensorPlan
from redline.kernels.problem import CpuTarget, num_bytes
from redline.lower import MemoryPlan, Program, Step, View
from redline.tune import Choice

SPACES = {
    "temp": ("arena", Space.ARENA),
    "constant": ("weights", Space.WEIGHTS),
    "input": ("input", Space.INPUT),
    "output": ("output", Space.OUTPUT),
}


@dataclass(frozen=True)
class Assembly:
    """What the linker and the writer need of one plan."""

    plan: Plan
    header: Header


class Assembler:
    """Gives every operand of every step its address, for the C table and for the header alike."""

    def __init__(
        self, program: Program, memory: MemoryPlan, choices: Sequence[Choice], shapes: Shapes | None = None,
        opened: Program | None = None, weights: Weights | None = None,
    ) -> None:  # fmt: skip
        """``program`` at its largest shape; ``shapes``: what is open in it; ``opened``: the program for all shapes.

        ``weights``: those of the engine, with what other plans have put there.
        """
        self.opened = opened or program
        self.program, self.memory, self.choices, self.shapes = program, memory, choices, shapes or Shapes()
        self.weights = Weights() if weights is None else weights
        self.placed = Placed(program, self.weights)
        self.inputs = {buffer.index: i for i, (_, buffer, _) in enumerate(program.inputs)}
        self.outputs = {buffer.index: i for i, (_, buffer, _) in enumerate(program.outputs)}
        temps = [b for b in program.buffers if b.index in memory.offsets]
        self.tensors = [self._temporary(b.index, b.num_bytes) for b in temps]
        self.tensor_of = {b.index: i for i, b in enumerate(temps)}
        self.weight_tensors: dict[int, int] = {}

    def _temporary(self, buffer: int, length: int) -> TensorPlan:
        steps = [i for i, s in enumerate(self.program.steps) if any(v.buffer.index == buffer for v in s.reads + s.writes)]
        return TensorPlan(f"t{buffer}", "arena", self.memory.offsets[buffer], length, steps[0], steps[-1])

    def run(self, target: CpuTarget, toolchain: Toolchain, report: Mapping[str, Any]) -> Assembly:
        steps, records = [], []
        for i, (step, choice) in enumerate(zip(self.program.steps, self.choices, strict=True)):
            barrier = i > 0 and self.memory.phases[i] != self.memory.phases[i - 1]
            placed = [self._place(view, choice, k) for k, view in enumerate(step.reads + step.writes)]
            placed = _at_open_offsets(placed, self.opened.steps[i])
            steps.append(PlanStep(choice.code.symbol, choice.code.num_chunks, tuple(ref for ref, _ in placed), barrier))
            records.append(_record(step, choice, barrier, [access for _, access in placed]))
        scratch = max((choice.code.scratch_bytes for choice in self.choices), default=0)
        plan = Plan(tuple(steps), self.memory.arena_bytes, scratch, num_dims=sum(not dim.is_found for dim in self.shapes.dims))
        header = Header(
            Stamp(isa.text(target), tuple(sorted(isa.needs(target))), redline.__version__, toolchain.identity),
            tuple(IO(name, b.dtype.name, shape, self.shapes.terms.get(name, ())) for name, b, shape in self.program.inputs),
            tuple(IO(name, b.dtype.name, shape, self.shapes.terms.get(name, ())) for name, b, shape in self.program.outputs),
            tuple(self.tensors), tuple(records), plan.arena_bytes, plan.scratch_bytes, target.num_threads, report,
            dims=self.shapes.dims,
        )  # fmt: skip
        return Assembly(plan, header)

    def _place(self, view: View, choice: Choice, position: int) -> tuple[Ref, Access]:
        name, space = SPACES[view.buffer.kind]
        start = view.offset * view.dtype.size
        shape, strides = view.shape, view.strides
        if view.buffer.kind == "constant":
            offset = self.placed.place(view, choice.code, position)
            tensor, base = self._weight_tensor(offset)
            if position in choice.code.packings:
                packed = self.weights.arrays[self.weights.index_at(base)]
                return Ref(space, offset), Access(name, tensor, 0, packed.dtype.name, (packed.size,), (1,))
            return Ref(space, offset), Access(name, tensor, offset - base, view.dtype.name, shape, strides)
        if view.buffer.kind == "temp":
            ref = Ref(space, self.memory.offsets[view.buffer.index] + start)
            tensor = self.tensor_of[view.buffer.index]
        else:
            tensor = (self.inputs if view.buffer.kind == "input" else self.outputs)[view.buffer.index]
            ref = Ref(space, start, tensor)
        return ref, Access(name, tensor, start, view.dtype.name, shape, strides)

    def _weight_tensor(self, offset: int) -> tuple[int, int]:
        """The number in ``tensors`` and the first byte of the array in the weights blob that ``offset`` lies in."""
        array = self.weights.index_at(offset)
        base = self.weights.starts[array]
        if array not in self.weight_tensors:
            self.weight_tensors[array] = len(self.tensors)
            last = len(self.program.steps) - 1
            self.tensors.append(TensorPlan(f"w{array}", "weights", base, self.weights.arrays[array].nbytes, 0, last))
        return self.weight_tensors[array], base


def _at_open_offsets(placed: Sequence[tuple[Ref, Access]], step: Step) -> list[tuple[Ref, Access]]:
    """``placed`` at the largest shape; where the dimensions decide where a view of ``step`` begins, the call counts it."""
    found = []
    for (ref, access), view in zip(placed, step.reads + step.writes, strict=True):
        start = view.offset * view.dtype.size
        found.append((replace(ref, offset=ref.offset - high(start), open=start), access) if is_open(start) else (ref, access))
    return found


def _record(step: Step, choice: Choice, barrier: bool, accesses: Sequence[Access]) -> KernelRecord:
    problem, reads = step.problem, len(step.reads)
    return KernelRecord(
        choice.code.symbol, step.family, step.nodes, high(choice.code.num_chunks), barrier, tuple(accesses[:reads]),
        tuple(accesses[reads:]), problem.flops, num_bytes(problem), repr(choice.schedule), choice.seconds, step.reason,
    )  # fmt: skip
