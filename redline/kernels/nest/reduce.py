"""Loops with a reduction, in one of three forms, by where memory is contiguous:

small    few reduced steps: they are unrolled inside the vector loop over a written axis, state in registers
columns  contiguous along a written axis: a block of it keeps its states side by side while the reduced axes are walked
rows     contiguous along a reduced axis: one result at a time, its state spread over lanes that are merged at the end

Sums of floats run in float over short stretches, and the stretches are summed in double: the error does not grow with the
length of the reduction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from redline.kernels import cexpr, functions
from redline.kernels.accumulator import Accumulator
from redline.kernels.cexpr import affine_text
from redline.kernels.ctext import block, loop
from redline.kernels.nest.domain import Loops, load_forms
from redline.kernels.nest.order import SHORT, order_of, vector_axis
from redline.kernels.nest.pointwise import VECTORIZE
from redline.kernels.nest.problem import Problem
from redline.kernels.parts import Axis, Part, once, walk

SMALL = 32  # reduced steps that are unrolled
COLUMNS = 64  # states side by side
LANES = 64
STRETCH = 128  # additions to one float state before it goes to a double


def part(problem: Problem, loops: Loops, num_chunks: int) -> Part:
    nest = _Nest(problem, loops, _states(problem))
    steps = prod(loops.extents[axis] for axis in loops.reduced)
    best = vector_axis(loops, range(len(loops.extents)), count_stores=False)
    if best is not None and best in loops.reduced and (steps > SMALL or loops.extents[best] >= SHORT):
        return _rows(nest, best, num_chunks)
    written = vector_axis(loops, loops.written, count_stores=False)
    if steps > SMALL and written is not None:
        return _columns(nest, written, num_chunks)
    return _small(nest, num_chunks)


def _states(problem: Problem) -> list[Accumulator]:
    reduction = problem.reduction
    assert reduction is not None
    held = [functions.compute_type(body.dtype) for body in problem.bodies]
    return [Accumulator(slot, reduction.kind, dtype) for slot, dtype in enumerate(held)]


def _reach(loops: Loops, axis: int) -> int:
    """How far apart in memory neighbours along ``axis`` lie: the axis to walk outermost lies widest."""
    return -max((abs(form.of(axis)) for _, form in load_forms(loops) if form is not None), default=0)


@dataclass(frozen=True)
class _Nest:
    """A problem's loops with the texts that all three forms share."""

    problem: Problem
    loops: Loops
    states: list[Accumulator]

    @property
    def coordinates(self) -> list[str]:
        return [f"i{axis}" for axis in range(len(self.loops.extents))]

    def update(self, lane: str = "") -> list[str]:
        """One reduced step."""
        renderer = cexpr.Renderer(self.problem.reads, self.coordinates, extents=self.loops.extents)
        position = affine_text(self.loops.position, self.coordinates)
        lines: list[str] = []
        for state, body in zip(self.states, self.loops.bodies, strict=True):
            statements, value = renderer.emit(body)
            lines += [*statements, *state.add(value, position, lane)]
        return lines

    def finish(self, results: Sequence[str]) -> list[str]:
        """The epilogues over the C texts of the reduced values, stored."""
        renderer = cexpr.Renderer(self.problem.reads, self.coordinates, results, extents=self.loops.extents, prefix="e")
        lines, stores = [], []
        for number, result in enumerate(self.loops.results):
            statements, value = renderer.emit(result)
            lines += statements
            offset = affine_text(self.loops.stores[number], self.coordinates)
            stores.append(cexpr.store(self.problem.writes[number], f"out{number}", offset, value))
        return lines + stores

    def declare(self, lanes: int | None = None) -> list[str]:
        return [line for state in self.states for line in state.declare(lanes)]

    def results(self, lane: str = "") -> list[str]:
        return [state.result(lane) for state in self.states]

    def outer_reduced(self, inner: int | None) -> list[int]:
        """The other reduced axes, widest step in memory first."""
        return sorted((a for a in self.loops.reduced if a != inner), key=lambda a: _reach(self.loops, a))

    def outer_written(self, inner: int | None) -> list[Axis]:
        axes = (a for a in self.loops.written if a != inner)
        ordered = sorted(axes, key=lambda a: -abs(self.loops.stores[0].of(a)))
        return [(f"i{axis}", self.loops.extents[axis]) for axis in ordered]


# --- small ------------------------------------------------------------------------------------------------------------


def _small(nest: _Nest, num_chunks: int) -> Part:
    loops = nest.loops
    order = order_of(loops)
    lines = nest.update()
    for axis in reversed(nest.outer_reduced(None)):
        lines = ["#pragma clang loop unroll(full)", *loop(f"i{axis}", 0, loops.extents[axis], lines)]
    lines = [*nest.declare(), *lines, *nest.finish(nest.results())]
    if order.vector is None:
        return once(lines)
    vector = loop(f"i{order.vector}", 0, loops.extents[order.vector], lines)
    outer = nest.outer_written(order.vector)
    if outer:
        return walk(outer, [VECTORIZE, *vector], num_chunks)
    return Part(loops.extents[order.vector], [VECTORIZE, *loop(f"i{order.vector}", "begin", "end", lines)])


# --- columns ----------------------------------------------------------------------------------------------------------


def _columns(nest: _Nest, vector: int, num_chunks: int) -> Part:
    extent = nest.loops.extents[vector]
    width = min(extent, COLUMNS)
    whole, rest = extent // width, extent % width
    lines = _column_block(nest, vector, width, width)
    if rest:
        last = _column_block(nest, vector, width, rest)
        lines = [*block(f"if (b{vector} < {whole})", lines), *block("else", last)]
    return walk([*nest.outer_written(vector), (f"b{vector}", whole + (rest > 0))], lines, num_chunks)


def _column_block(nest: _Nest, vector: int, width: int, count: int) -> list[str]:
    """``count`` neighbouring results: their states are lanes, and the reduced axes are walked once for all of them."""

    def lanes(body: list[str]) -> list[str]:
        head = [f"const int64_t i{vector} = b{vector} * {width} + l;"]
        return [VECTORIZE, *loop("l", 0, count, [*head, *body])]

    axes = nest.outer_reduced(None)
    lines = _walk(nest, axes, lanes(nest.update("[l]")), count, lanes=count)
    return [*lines, *lanes(nest.finish(_totals(nest, "[l]")))]


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(nest: _Nest, inner: int, num_chunks: int) -> Part:
    extent = nest.loops.extents[inner]
    lanes = min(LANES, 1 << max(0, extent.bit_length() - 1))
    axes = nest.outer_reduced(inner)
    step = [f"const int64_t i{inner} = r + l;", *nest.update("[l]")]
    body = [f"for (int64_t r = begin_{inner}; r < end_{inner}; r += {lanes}) {{"]
    body += [f"  {line}" for line in [VECTORIZE, *loop("l", 0, lanes, step)]] + ["}"]
    whole = extent // lanes * lanes
    if extent > whole:
        rest = [VECTORIZE, *loop("l", 0, extent - whole, [f"const int64_t r = {whole};", *step])]
        body += rest if whole <= STRETCH * lanes else block(f"if (end_{inner} == {whole})", rest)
    lines = _walk(nest, axes, body, lanes, lanes=lanes, blocked=(inner, whole, lanes))
    lines += _merge_lanes(nest, lanes)
    lines += nest.finish(_totals(nest, "[0]"))
    return walk(nest.outer_written(None), lines, num_chunks)


def _merge_lanes(nest: _Nest, lanes: int) -> list[str]:
    merged = [line for state in nest.states for line in _pairwise(state)]
    head = f"for (int64_t half = {lanes // 2}; half; half /= 2) for (int64_t l = 0; l < half; ++l)"
    return block(head, merged) if lanes > 1 else []


def _pairwise(state: Accumulator) -> list[str]:
    if state.needs_double:
        return [f"total{state.slot}[l] {'+' if state.kind == 'sum' else '*'}= total{state.slot}[l + half];"]
    return state.merge("[l]", "[l + half]")


# --- precision --------------------------------------------------------------------------------------------------------


def _walk(
    nest: _Nest, axes: Sequence[int], body: list[str], count: int, lanes: int, blocked: tuple[int, int, int] | None = None
) -> list[str]:  # fmt: skip
    """Loops over the reduced ``axes`` around ``body``, with float states moved to totals of type double now and then.

    ``blocked``: (axis, extent, step) of an innermost loop that ``body`` holds itself, from begin_<axis> to end_<axis>.
    """
    doubles = [state for state in nest.states if state.needs_double]
    steps, inner, depth = (blocked[1] // blocked[2] if blocked else 1), list(body), len(axes)
    if blocked:
        inner = [*_stretches(blocked, _flush(doubles, lanes), inner)]
    flushed = blocked is not None and steps > STRETCH
    while depth and not flushed and steps * nest.loops.extents[axes[depth - 1]] <= STRETCH:
        depth -= 1
        steps *= nest.loops.extents[axes[depth]]
        inner = loop(f"i{axes[depth]}", 0, nest.loops.extents[axes[depth]], inner)
    if depth and not flushed and doubles:
        axis = axes[depth - 1]
        inner = _cut_axis(axis, nest.loops.extents[axis], max(1, STRETCH // steps), inner, _flush(doubles, lanes))
        depth, flushed = depth - 1, True
    for axis in reversed(axes[:depth]):
        inner = loop(f"i{axis}", 0, nest.loops.extents[axis], inner)
    totals = [line for state in doubles for line in _declare_total(state, lanes)]
    return [*nest.declare(lanes), *totals, *inner, *_flush(doubles, lanes)]


def _cut_axis(axis: int, extent: int, stretch: int, body: list[str], flush: list[str]) -> list[str]:
    limit = f"s{axis} + {stretch} < {extent} ? s{axis} + {stretch} : {extent}"
    inner = [f"const int64_t end_{axis} = {limit};", *loop(f"i{axis}", f"s{axis}", f"end_{axis}", body), *flush]
    return block(f"for (int64_t s{axis} = 0; s{axis} < {extent}; s{axis} += {stretch})", inner)


def _stretches(blocked: tuple[int, int, int], flush: list[str], body: list[str]) -> list[str]:
    """The lanes' own loop, cut into stretches when it is long."""
    axis, extent, step = blocked
    if extent <= STRETCH * step:
        return block("", [f"const int64_t begin_{axis} = 0, end_{axis} = {extent};", *body])
    stretch = STRETCH * step
    limit = f"begin_{axis} + {stretch} < {extent} ? begin_{axis} + {stretch} : {extent}"
    inner = [f"const int64_t end_{axis} = {limit};", *body, *flush]
    return block(f"for (int64_t begin_{axis} = 0; begin_{axis} < {extent}; begin_{axis} += {stretch})", inner)


def _declare_total(state: Accumulator, lanes: int) -> list[str]:
    begin = 0 if state.kind == "sum" else 1
    return [
        f"double total{state.slot}[{lanes}] __attribute__((aligned(64)));",
        f"for (int64_t l = 0; l < {lanes}; ++l) total{state.slot}[l] = {begin};",
    ]


def _flush(states: Sequence[Accumulator], lanes: int) -> list[str]:
    lines = []
    for state in states:
        fold = "+" if state.kind == "sum" else "*"
        name = state.name
        move = f"total{state.slot}[l] {fold}= {name}[l]; {name}[l] = {state.identity};"
        lines.append(f"for (int64_t l = 0; l < {lanes}; ++l) {{ {move} }}")
    return lines


def _totals(nest: _Nest, lane: str) -> list[str]:
    return [f"((float)total{s.slot}{lane})" if s.needs_double else s.result(lane) for s in nest.states]
