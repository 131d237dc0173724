"""The C text of a pool: for each output pixel, blocks of channels folded over the taps that lie inside the input."""

from redline.base.shapes import size
from redline.kernels import cexpr, functions
from redline.kernels.cexpr import c_type, literal
from redline.kernels.ctext import VECTORIZE, block, loop, offset
from redline.kernels.expr import Acc
from redline.kernels.functions import extreme
from redline.kernels.parts import kernel, once, walk
from redline.kernels.pool.problem import Problem, Schedule, Window
from redline.kernels.problem import CpuTarget, KernelCode

VECTORS = 4  # of channels in a block


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    if size(problem.out.shape) == 0:
        part = once([])
    else:
        shape = problem.out.shape
        axes = [(f"o{axis}", extent) for axis, extent in enumerate(shape[:-1])]
        part = walk(axes, _pixel(problem, target), min(schedule.max_chunks, size(shape[:-1])))
    num_chunks = min(part.num_steps, schedule.max_chunks)
    text = "\n".join(kernel(problem.reads, problem.writes, part, num_chunks)) + "\n"
    return KernelCode("pool", cexpr.prelude(text) + text, num_chunks)


def _pixel(problem: Problem, target: CpuTarget) -> list[str]:
    lines, counts = [], []
    for axis, window in enumerate(problem.windows, start=1):
        lines += _tap_range(f"{axis}", window, problem.x.shape[axis])
        counts.append(_count(f"{axis}", window, problem.x.shape[axis], problem.count_padding))
    if problem.kind == "average":
        lines.append(f"const {problem.acc.c} share = ({problem.acc.c})1 / ({' * '.join(counts)});")
    channels = problem.out.shape[-1]
    width = VECTORS * target.vector_bytes // problem.acc.size
    whole = channels // width
    if whole:
        lines += loop("block", 0, whole, [f"const int64_t c0 = block * {width};", *_block(problem, width)])
    if channels % width:
        lines += block("", [f"const int64_t c0 = {whole * width};", *_block(problem, channels % width)])
    return lines


def _tap_range(a: str, window: Window, extent: int) -> list[str]:
    """Declares ``first`` (the coordinate of tap 0) and the taps [begin, end) that lie inside the input."""
    step = window.dilation
    low = f"first{a} < 0 ? (-first{a} + {step - 1}) / {step} : 0"
    high = (
        f"{extent - 1} - first{a} < {(window.kernel - 1) * step} ? ({extent - 1 + step} - first{a}) / {step} : {window.kernel}"
    )
    return [f"const int64_t first{a} = o{a} * {window.stride} - {window.pad_begin};",
            f"const int64_t begin{a} = {low if window.pad_begin else '0'}, end{a} = {high};"]  # fmt: skip


def _count(a: str, window: Window, extent: int, count_padding: bool) -> str:
    """How many taps count along an axis."""
    if not count_padding:
        return f"(end{a} > begin{a} ? end{a} - begin{a} : 0)"
    step, reach = window.dilation, extent - 1 + window.pad_end
    inside = f"({reach + step} - first{a}) / {step}"
    return f"({reach} - first{a} < {(window.kernel - 1) * step} ? {inside} : {window.kernel})"


def _block(problem: Problem, width: int) -> list[str]:
    """``width`` channels from ``c0`` on."""
    x, held = problem.x, c_type(problem.acc)
    begin = literal(extreme(problem.acc, lowest=True) if problem.kind == "max" else 0, problem.acc)
    taps = [f"(first{a} + k{a} * {window.dilation})" for a, window in enumerate(problem.windows, start=1)]
    at = offset(["o0", *taps, "(c0 + c)"], x.strides)
    element = cexpr.cast_text(cexpr.from_storage(x.dtype, f"arg0[{at}]"), x.dtype, problem.acc)
    fold = functions.lookup("max" if problem.kind == "max" else "add")
    unknown = Acc(problem.acc)
    step = [f"const {held} v = {element};", f"acc[c] = {fold.c(problem.acc, ('acc[c]', 'v'), (unknown, unknown))};"]
    inner = [VECTORIZE, *loop("c", 0, width, step)]
    for axis in range(len(problem.windows), 0, -1):
        inner = loop(f"k{axis}", f"begin{axis}", f"end{axis}", inner)
    clear = f"for (int64_t c = 0; c < {width}; ++c) acc[c] = {begin};"
    return [f"{held} acc[{width}] __attribute__((aligned(64)));", clear, *inner, *_finish(problem, width)]


def _finish(problem: Problem, width: int) -> list[str]:
    names = [f"o{axis}" for axis in range(len(problem.out.shape) - 1)] + ["i"]
    result = "acc[c] * share" if problem.kind == "average" else "acc[c]"
    renderer = cexpr.Renderer(problem.reads, names, ["result"], extents=problem.out.shape)
    statements, value = renderer.render(problem.epilogue)
    store = cexpr.store(problem.out, "out0", offset(names, problem.out.strides), value)
    lines = ["const int64_t i = c0 + c;", f"const {c_type(problem.acc)} result = {result};", *statements, store]
    return [VECTORIZE, *loop("c", 0, width, lines)]
