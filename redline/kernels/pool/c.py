"""The C text of a pool: for each output pixel, the channels, each folded over its taps.

Where all taps of a pixel lie inside the input they are written out, so that vectors of channels stay in registers. A
maximum without dilation always works so: a tap outside is moved to the edge, which the window covers anyhow. Other pixels
at the edge walk the taps that lie inside in loops.
"""

from itertools import product

from redline.base.extents import minimum
from redline.base.shapes import size
from redline.kernels import cexpr
from redline.kernels.accumulator import Accumulator
from redline.kernels.cexpr import c_type
from redline.kernels.ctext import VECTORIZE, block, loop, offset, vectorized
from redline.kernels.parts import kernel, once, walk
from redline.kernels.pool.problem import Problem, Schedule, Window
from redline.kernels.problem import CpuTarget, KernelCode

VECTORS = 4  # of channels in a block of a pixel at the edge
MAX_WRITTEN_TAPS = 32


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    if size(problem.out.shape) == 0:
        part = once([])
    else:
        shape = problem.out.shape
        axes = [(f"o{axis}", extent) for axis, extent in enumerate(shape[:-1])]
        part = walk(axes, _pixel(problem, target), minimum(schedule.max_chunks, size(shape[:-1])))
    num_chunks = minimum(part.num_steps, schedule.max_chunks)
    text = "\n".join(kernel(problem.reads, problem.writes, part, num_chunks)) + "\n"
    return KernelCode("pool", cexpr.prelude(text) + text, num_chunks)


def _pixel(problem: Problem, target: CpuTarget) -> list[str]:
    axes = list(enumerate(problem.windows, start=1))
    first = [f"const int64_t first{axis} = o{axis} * {window.stride} - {window.pad_begin};" for axis, window in axes]
    written = size(window.kernel for window in problem.windows) <= MAX_WRITTEN_TAPS
    if problem.kind == "max" and written and all(map(_may_clamp, problem.windows, problem.x.shape[1:], problem.out.shape[1:])):
        return [*first, *_clamped_places(problem), *_written_out(problem)]
    lines, counts = first, []
    for axis, window in axes:
        lines = lines + _tap_range(axis, window, problem.x.shape[axis])
        counts.append(_count(axis, window, problem.x.shape[axis], problem.count_padding))
    if problem.kind == "average":
        lines.append(f"const {problem.acc.c} share = ({problem.acc.c})1 / ({' * '.join(counts)});")
    if not written:
        return lines + _walked(problem, target)
    whole = " && ".join(f"begin{axis} == 0 && end{axis} == {window.kernel}" for axis, window in axes)
    inside = [*_places(problem), *_written_out(problem)]
    return [*lines, *block(f"if ({whole})", inside), *block("else", _walked(problem, target))]


# --- taps written out -------------------------------------------------------------------------------------------------


def _may_clamp(window: Window, extent: int, out: int) -> bool:
    """Whether a tap outside may be moved to the edge: the window reaches the input everywhere, without gaps."""
    last = (out - 1) * window.stride - window.pad_begin
    return window.dilation == 1 and extent > 0 and window.pad_begin < window.kernel and last < extent


def _places(problem: Problem) -> list[str]:
    """Declares ``place<axis>_<k>``: the element offset of tap k along an axis."""
    lines = []
    for axis, window in enumerate(problem.windows, start=1):
        for k in range(window.kernel):
            at = f"(first{axis} + {k * window.dilation}) * {problem.x.strides[axis]}"
            lines.append(f"const int64_t place{axis}_{k} = {at};")
    return lines


def _clamped_places(problem: Problem) -> list[str]:
    lines = []
    for axis, window in enumerate(problem.windows, start=1):
        edge = problem.x.shape[axis] - 1
        for k in range(window.kernel):
            at = f"first{axis} + {k}"
            near = f"{at} < 0 ? 0 : {at} > {edge} ? {edge} : {at}"
            lines.append(f"const int64_t place{axis}_{k} = ({near}) * {problem.x.strides[axis]};")
    return lines


def _written_out(problem: Problem) -> list[str]:
    x, state = problem.x, _state(problem)
    lines = ["const int64_t i = c;", *state.declare()]
    base = offset(["o0", "c"], [x.strides[0], x.strides[-1]])
    for taps in product(*(range(window.kernel) for window in problem.windows)):
        places = "".join(f" + place{axis}_{k}" for axis, k in enumerate(taps, start=1))
        lines += ["{", f"const {c_type(problem.acc)} v = {_element(problem, base + places)};", *state.add("v", "0"), "}"]
    return vectorized("c", 0, problem.out.shape[-1], [*lines, *_finish(problem, state.result())])


# --- taps in loops ----------------------------------------------------------------------------------------------------


def _tap_range(axis: int, window: Window, extent: int) -> list[str]:
    """Declares the taps [begin, end) that lie inside the input."""
    step = window.dilation
    low = f"first{axis} < 0 ? ({step - 1} - first{axis}) / {step} : 0" if window.pad_begin else "0"
    cut = f"{extent - 1} - first{axis} < {(window.kernel - 1) * step}"
    high = f"{cut} ? ({extent - 1 + step} - first{axis}) / {step} : {window.kernel}"
    return [f"const int64_t begin{axis} = {low}, end{axis} = {high};"]


def _count(axis: int, window: Window, extent: int, count_padding: bool) -> str:
    """How many taps count along an axis."""
    if not count_padding:
        return f"(end{axis} > begin{axis} ? end{axis} - begin{axis} : 0)"
    step, reach = window.dilation, extent - 1 + window.pad_end
    inside = f"({reach + step} - first{axis}) / {step}"
    return f"({reach} - first{axis} < {(window.kernel - 1) * step} ? {inside} : {window.kernel})"


def _walked(problem: Problem, target: CpuTarget) -> list[str]:
    channels = problem.out.shape[-1]
    width = VECTORS * target.vector_bytes // problem.acc.size
    whole = channels // width
    lines = []
    if whole:
        lines += loop("block", 0, whole, [f"const int64_t c0 = block * {width};", *_walked_block(problem, width)])
    if channels % width:
        lines += block("", [f"const int64_t c0 = {whole * width};", *_walked_block(problem, channels % width)])
    return lines


def _walked_block(problem: Problem, width: int) -> list[str]:
    """``width`` channels from ``c0`` on."""
    state = _state(problem)
    taps = [f"(first{a} + k{a} * {window.dilation})" for a, window in enumerate(problem.windows, start=1)]
    element = _element(problem, offset(["o0", *taps, "(c0 + c)"], problem.x.strides))
    inner = [VECTORIZE, *loop("c", 0, width, [f"const {c_type(problem.acc)} v = {element};", *state.add("v", "0", "[c]")])]
    for axis in range(len(problem.windows), 0, -1):
        inner = loop(f"k{axis}", f"begin{axis}", f"end{axis}", inner)
    finish = ["const int64_t i = c0 + c;", *_finish(problem, state.result("[c]"))]
    return [*state.declare(width), *inner, VECTORIZE, *loop("c", 0, width, finish)]


# --- both -------------------------------------------------------------------------------------------------------------


def _state(problem: Problem) -> Accumulator:
    return Accumulator(0, "max" if problem.kind == "max" else "sum", problem.acc)


def _element(problem: Problem, at: str) -> str:
    dtype = problem.x.dtype
    return cexpr.cast_text(cexpr.from_storage(dtype, f"arg0[{at}]"), dtype, problem.acc)


def _finish(problem: Problem, acc: str) -> list[str]:
    """The epilogue of channel ``i`` and its store."""
    names = [f"o{axis}" for axis in range(len(problem.out.shape) - 1)] + ["i"]
    renderer = cexpr.Renderer(problem.reads, names, ["result"], extents=problem.out.shape)
    statements, value = renderer.render(problem.epilogue)
    store = cexpr.store(problem.out, "out0", offset(names, problem.out.strides), value)
    result = f"{acc} * share" if problem.kind == "average" else acc
    return [f"const {c_type(problem.acc)} result = {result};", *statements, store]
