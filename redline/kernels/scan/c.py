"""The C text of a scan: one line after the other."""

from redline.base.shapes import size
from redline.kernels import cexpr
from redline.kernels.accumulator import Accumulator
from redline.kernels.ctext import loop, offset
from redline.kernels.functions import compute_type
from redline.kernels.parts import kernel, once, walk
from redline.kernels.problem import CpuTarget, KernelCode
from redline.kernels.scan.problem import Problem, Schedule


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    axes = [(f"i{axis}", extent) for axis, extent in enumerate(problem.out.shape[:-1])]
    part = walk(axes, _line(problem), schedule.max_chunks) if size(problem.out.shape) else once([])
    num_chunks = min(part.num_steps, schedule.max_chunks)
    text = "\n".join(kernel(problem.reads, problem.writes, part, num_chunks)) + "\n"
    return KernelCode("scan", cexpr.prelude(text) + text, num_chunks)


def _line(problem: Problem) -> list[str]:
    out = problem.out
    names = [f"i{axis}" for axis in range(len(out.shape) - 1)] + ["j"]
    state = Accumulator(0, problem.kind, compute_type(out.dtype))
    statements, value = cexpr.Renderer(problem.reads, names, extents=out.shape).render(problem.body)
    store = cexpr.store(out, "out0", offset(names, out.strides), state.result(), rounded=False)
    add = state.add(value, "0")
    place = f"const int64_t j = {f'{out.shape[-1] - 1} - s' if problem.reverse else 's'};"
    body = [place, *statements, *([store, *add] if problem.exclusive else [*add, store])]
    return [*state.declare(), *loop("s", 0, out.shape[-1], body)]
