"""The C text of a loop nest: one function for each box of the domain, and KERNEL, which deals the chunks out to them."""

from collections.abc import Sequence

from redline.base.extents import minimum, nominal
from redline.kernels import cexpr
from redline.kernels.ctext import block
from redline.kernels.nest import pointwise, reduce
from redline.kernels.nest.domain import Loops, loops_of
from redline.kernels.nest.problem import Problem, Schedule
from redline.kernels.parts import Part, dims, function, parameters, pointers, share
from redline.kernels.problem import CpuTarget, KernelCode


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    boxes = loops_of(problem)
    whole = sum(nominal(loops.num_elements) for loops in boxes)
    shares = [schedule.max_chunks * nominal(loops.num_elements) // max(1, whole) for loops in boxes]
    parts = [_part(problem, loops, share) for loops, share in zip(boxes, shares, strict=True)]
    shares = [minimum(share, part.num_steps) for share, part in zip(shares, parts, strict=True)]
    lines = []
    for number, part in enumerate(parts):
        lines += function(f"part{number}", parameters(problem.reads, problem.writes), part.body)
    deal = dims(problem.reads, problem.writes) + _deal(problem, parts, shares)
    lines += block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", deal)
    text = "\n".join(lines) + "\n"
    num_chunks = sum(shares) + (0 in shares or not shares)
    return KernelCode("nest", cexpr.prelude(text) + text, num_chunks)


def _part(problem: Problem, loops: Loops, num_chunks: int) -> Part:
    return (pointwise if problem.reduction is None else reduce).part(problem, loops, num_chunks)


def fill(problem: Problem) -> tuple[list[str], list[str]]:
    """The functions that compute ``problem`` and the statements that call them, for kernels that begin with a nest."""
    parts = [_part(problem, loops, 1) for loops in loops_of(problem)]
    lines = []
    for number, part in enumerate(parts):
        lines += function(f"part{number}", parameters(problem.reads, problem.writes), part.body)
    passed = pointers(problem.reads, problem.writes)
    return lines, [f"part{number}({passed}, {share('0', part.num_steps, 1)});" for number, part in enumerate(parts)]


def _deal(problem: Problem, parts: Sequence[Part], shares: Sequence[int]) -> list[str]:
    """Parts with a share take that many chunks in turn; those too small for one are done together in the last chunk."""
    passed = pointers(problem.reads, problem.writes)
    lines, first = ["(void)args, (void)scratch, (void)chunk;"], 0
    for number, (part, count) in enumerate(zip(parts, shares, strict=True)):
        if count:
            steps = share(f"(chunk - {first})" if first else "chunk", part.num_steps, count)
            lines += block(f"if (chunk < {first + count})", [f"part{number}({passed}, {steps});", "return;"])
            first += count
    small = [number for number, count in enumerate(shares) if not count]
    return lines + [f"part{number}({passed}, {share('0', parts[number].num_steps, 1)});" for number in small]
