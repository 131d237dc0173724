"""A machine without a compiler: runs a program step by step with the references of the kernel families.

Temporaries lie in one arena at the planned offsets, which is full of NaN at the start, so a wrong view, a wrong life time
or a read before the write changes the answer. Steps of one phase may run in any order; ``backwards`` runs them last first.
"""

from collections.abc import Mapping

import numpy as np

from redline.builder.assemble import Assembler, Assembly
from redline.codegen.c import isa
from redline.codegen.c.toolchain import Toolchain
from redline.engine import check_plan
from redline.kernels import FAMILIES
from redline.lower import MemoryPlan, Program, View, plan
from redline.tune import Job, TimingCache, choose

Arrays = dict[str, np.ndarray]
NO_COMPILER = Toolchain("zig", "/nowhere", "0")  # type: ignore[arg-type]


class Machine:
    """The memory of one inference."""

    def __init__(self, program: Program, memory: MemoryPlan, feeds: Mapping[str, np.ndarray]) -> None:
        self.program, self.memory = program, memory
        self.arena = np.full(memory.arena_bytes, 0xFF, np.uint8)
        self.storage: dict[int, np.ndarray] = {}
        for buffer in program.buffers:
            if buffer.kind == "temp":
                start = memory.offsets[buffer.index]
                self.storage[buffer.index] = self.arena[start : start + buffer.num_bytes].view(buffer.dtype.numpy)
            elif buffer.kind == "constant":
                self.storage[buffer.index] = program.constants[buffer.index].reshape(-1)
            elif buffer.kind == "output":
                self.storage[buffer.index] = np.full(buffer.num_bytes, 0xFF, np.uint8).view(buffer.dtype.numpy)
        for name, buffer, shape in program.inputs:
            assert feeds[name].shape == shape and feeds[name].dtype == buffer.dtype.numpy
            self.storage[buffer.index] = feeds[name].reshape(-1)

    def at(self, view: View) -> np.ndarray:
        """The elements of a view, as a window on the memory; outside of its buffer is an error."""
        flat = self.storage[view.buffer.index]
        reach = [stride * (extent - 1) for extent, stride in zip(view.shape, view.strides, strict=True)]
        if 0 in view.shape:
            return np.empty(view.shape, flat.dtype)
        low, high = view.offset + sum(min(r, 0) for r in reach), view.offset + sum(max(r, 0) for r in reach)
        assert 0 <= low <= high < flat.size, f"{view} leaves its buffer"
        strides = [stride * flat.itemsize for stride in view.strides]
        return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides)

    def run(self, backwards: bool) -> Arrays:
        order = sorted(range(len(self.program.steps)), key=lambda i: (self.memory.phases[i], -i if backwards else i))
        for i in order:
            step = self.program.steps[i]
            with np.errstate(all="ignore"):
                results = FAMILIES[step.family].reference(step.problem, [np.array(self.at(view)) for view in step.reads])
            for view, result in zip(step.writes, results, strict=True):
                assert result.dtype == view.dtype.numpy and result.shape == view.shape, step
                self.at(view)[...] = result
        return {name: self.storage[buffer.index].reshape(shape) for name, buffer, shape in self.program.outputs}


def run(program: Program, feeds: Mapping[str, np.ndarray], backwards: bool = False) -> Arrays:
    """The program's outputs by name."""
    return Machine(program, plan(program.steps), feeds).run(backwards)


def assemble(program: Program, target: str = "avx512") -> Assembly:
    """The engine's parts with each family's first guess, nothing compiled; its plan has passed the checker."""
    cpu = isa.target(target, num_threads=2)
    jobs = [Job(step.family, step.problem) for step in program.steps]
    choices = choose(jobs, cpu, NO_COMPILER, 0, TimingCache("nowhere"), lambda stage, done, total: None)
    assembler = Assembler(program, plan(program.steps), [choices[job] for job in jobs])
    assembly = assembler.run(cpu, NO_COMPILER, {})
    check_plan(assembly.header, assembler.weights.num_bytes, program.name)
    return assembly
