"""The C text of a scatter: the loop nest that fills, then loops over the values in their order."""

from redline.base.shapes import size
from redline.kernels import bounds, cexpr, functions, nest
from redline.kernels.cexpr import c_type, from_storage
from redline.kernels.ctext import VECTORIZE, block, loop, offset
from redline.kernels.expr import Acc
from redline.kernels.nest.c import fill
from redline.kernels.parts import function, parameters, pointers, share
from redline.kernels.prepare import prepare
from redline.kernels.problem import CpuTarget, KernelCode
from redline.kernels.scatter.problem import Problem, Schedule


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    lines, body = [], ["(void)args, (void)scratch, (void)chunk;"]
    filled, calls = fill(nest.Problem(problem.reads, problem.writes, (problem.initial,)))
    lines += filled
    body += calls
    if size(problem.extents) and size(problem.out.shape):
        lines += function("put", parameters(problem.reads, problem.writes), _put(problem))
        body.append(f"put({pointers(problem.reads, problem.writes)}, {share('0', 1, 1)});")
    lines += block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)
    text = "\n".join(lines) + "\n"
    return KernelCode("scatter", cexpr.prelude(text) + text, 1)


def _put(problem: Problem) -> list[str]:
    out, rank = problem.out, len(problem.extents)
    renderer = cexpr.Renderer(problem.reads, [f"i{axis}" for axis in range(rank)], extents=problem.extents)
    lines, inside = [], []
    for axis, (coordinate, extent) in enumerate(zip(problem.place, out.shape, strict=True)):
        statements, text = renderer.render(coordinate)
        lines += [*statements, f"const int64_t p{axis} = {text};"]
        known = bounds.interval(coordinate, bounds.box_of(problem.extents))
        if known is None or known[0] < 0 or known[1] >= extent:
            inside.append(f"(uint64_t)p{axis} < {extent}")
    statements, value = renderer.render(problem.value)
    store = [*statements, *_store(problem, value)]
    lines += block(f"if ({' & '.join(inside)})", store) if inside else store
    for axis in reversed(range(rank)):
        vector = [VECTORIZE] if axis == rank - 1 and _distinct(problem, axis) else []
        lines = [*vector, *loop(f"i{axis}", 0, problem.extents[axis], lines)]
    return ["(void)begin, (void)end;", *lines]


def _store(problem: Problem, value: str) -> list[str]:
    out = problem.out
    at = offset([f"p{axis}" for axis in range(len(out.shape))], out.strides)
    if problem.fold == "none":
        return [cexpr.store(out, "out0", at, value)]
    kind, unknown = functions.compute_type(out.dtype), Acc(functions.compute_type(out.dtype))
    text = functions.lookup(problem.fold).c(kind, ("was", "is"), (unknown, unknown))
    was = f"const {c_type(out.dtype)} was = {from_storage(out.dtype, f'out0[{at}]')}, is = {value};"
    return [was, cexpr.store(out, "out0", at, text if kind == out.dtype else f"({text})", rounded=False)]


def _distinct(problem: Problem, axis: int) -> bool:
    """Whether values that differ only along ``axis`` go to places that differ, whatever the data."""
    places = [prepare(p, problem.reads, bounds.box_of(problem.extents)) for p in problem.place]
    moving = [p for p in places if axis in bounds.indices(p)]
    form = bounds.affine(moving[0]) if len(moving) == 1 else None
    return form is not None and form.of(axis) != 0
