"""The C text of a loop nest: one function for each box of the domain, and KERNEL, which deals the chunks out to them."""

from collections.abc import Sequence

from redline.kernels import cexpr
from redline.kernels.ctext import block
from redline.kernels.nest import pointwise, reduce
from redline.kernels.nest.domain import Loops, loops_of
from redline.kernels.nest.part import Part, function
from redline.kernels.nest.problem import Problem, Schedule
from redline.kernels.problem import CpuTarget, KernelCode


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    boxes = loops_of(problem)
    whole = sum(loops.num_elements for loops in boxes)
    shares = [schedule.max_chunks * loops.num_elements // max(1, whole) for loops in boxes]
    parts = [_part(problem, loops, share) for loops, share in zip(boxes, shares, strict=True)]
    shares = [min(share, part.num_steps) for share, part in zip(shares, parts, strict=True)]
    lines = []
    for number, part in enumerate(parts):
        lines += function(f"part{number}", _parameters(problem), part.body)
    lines += block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", _deal(problem, parts, shares))
    text = "\n".join(lines) + "\n"
    num_chunks = sum(shares) + (0 in shares or not shares)
    return KernelCode("nest", cexpr.prelude(text) + text, num_chunks)


def _part(problem: Problem, loops: Loops, num_chunks: int) -> Part:
    return (pointwise if problem.reduction is None else reduce).part(problem, loops, num_chunks)


def _parameters(problem: Problem) -> list[str]:
    reads = [f"const {read.dtype.c} *restrict arg{i}" for i, read in enumerate(problem.reads)]
    return reads + [f"{write.dtype.c} *restrict out{i}" for i, write in enumerate(problem.writes)]


def _deal(problem: Problem, parts: Sequence[Part], shares: Sequence[int]) -> list[str]:
    """Parts with a share take that many chunks in turn; those too small for one are done together in the last chunk."""
    pointers = ", ".join(f"args[{i}]" for i in range(len(problem.reads) + len(problem.writes)))
    lines, first = ["(void)scratch, (void)chunk;"], 0
    for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
        if share:
            steps, local = part.num_steps, f"(chunk - {first})" if first else "chunk"
            bounds = f"{local} * {steps} / {share}, ({local} + 1) * {steps} / {share}"
            lines += block(f"if (chunk < {first + share})", [f"part{number}({pointers}, {bounds});", "return;"])
            first += share
    small = [number for number, share in enumerate(shares) if not share]
    return lines + [f"part{number}({pointers}, 0, {parts[number].num_steps});" for number in small]
