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

from redline.base.extents import ceil_div, high, is_open
from redline.kernels import cexpr, functions
from redline.kernels.accumulator import Accumulator
from redline.kernels.cexpr import affine_text
from redline.kernels.ctext import VECTORIZE_LONG, block, loop, vectorized
from redline.kernels.nest.domain import Loops, load_forms
from redline.kernels.nest.order import SHORT, order_of, vector_axis
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
    is_long = is_open(steps) or steps > SMALL
    if best is not None and best in loops.reduced and (is_long or loops.extents[best] >= SHORT):
        return _rows(nest, best, num_chunks)
    written = vector_axis(loops, loops.written, count_stores=False)
    if is_long and written is not None:
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
    lines = [*nest.declare(), *lines, *nest.finish([state.result() for state in nest.states])]
    if order.vector is None:
        return once(lines)
    vector = vectorized(f"i{order.vector}", 0, loops.extents[order.vector], lines)
    outer = nest.outer_written(order.vector)
    if outer:
        return walk(outer, vector, num_chunks)
    return Part(loops.extents[order.vector], vectorized(f"i{order.vector}", "begin", "end", lines))


# --- columns ----------------------------------------------------------------------------------------------------------


def _columns(nest: _Nest, vector: int, num_chunks: int) -> Part:
    extent = nest.loops.extents[vector]
    width = COLUMNS if is_open(extent) else min(extent, COLUMNS)
    whole, rest = extent // width, extent % width
    lines = _column_block(nest, vector, width, width)
    if is_open(rest) or rest:
        last = _column_block(nest, vector, width, rest)
        lines = [*block(f"if (b{vector} < {whole})", lines), *block("else", last)]
    return walk([*nest.outer_written(vector), (f"b{vector}", ceil_div(extent, width))], lines, num_chunks)


def _column_block(nest: _Nest, vector: int, width: int, count: int) -> list[str]:
    """``count`` neighbouring results: their states are lanes, and the reduced axes are walked once for all of them."""

    def lanes(body: list[str]) -> list[str]:
        head = [f"const int64_t i{vector} = b{vector} * {width} + l;"]
        return vectorized("l", 0, count, [*head, *body])

    walked = _walk(nest, nest.outer_reduced(None), lanes(nest.update("[l]")), width if is_open(count) else count)
    results = [_total(state, "[l]") if state in walked.doubled else state.result("[l]") for state in nest.states]
    return [*walked.lines, *lanes(nest.finish(results))]


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(nest: _Nest, inner: int, num_chunks: int) -> Part:
    extent = nest.loops.extents[inner]
    lanes = LANES if is_open(extent) else min(LANES, 1 << max(0, extent.bit_length() - 1))
    own = _RowLoop(inner, extent // lanes * lanes, lanes, extent)
    walked = _walk(nest, nest.outer_reduced(inner), own.body(nest.update("[l]")), lanes, own)
    lines = list(walked.lines)
    for state in nest.states:
        lines += _merge_totals(state, lanes) if state in walked.doubled else state.merge_lanes(lanes)
    results = [_total(state, "[0]") if state in walked.doubled else state.result("[0]") for state in nest.states]
    return walk(nest.outer_written(None), [*lines, *nest.finish(results)], num_chunks)


@dataclass(frozen=True)
class _RowLoop:
    """The loop along the row, in steps of ``lanes`` up to ``whole``; the rest of the row up to ``extent`` goes last."""

    axis: int
    whole: int
    lanes: int
    extent: int

    @property
    def steps(self) -> int:
        return self.whole // self.lanes

    @property
    def is_long(self) -> bool:
        return high(self.steps) > STRETCH

    def body(self, update: list[str]) -> list[str]:
        """The row from ``low`` to ``high``."""
        step = [f"const int64_t i{self.axis} = r + l;", *update]
        vectors = [VECTORIZE_LONG, *loop("l", 0, self.lanes, step)]
        lines = block(f"for (int64_t r = low; r < high; r += {self.lanes})", vectors)
        if self.extent == self.whole:
            return lines
        rest = [VECTORIZE_LONG, *loop("l", 0, self.extent - self.whole, [f"const int64_t r = {self.whole};", *step])]
        return lines + (block(f"if (high == {self.whole})", rest) if self.is_long else rest)

    def around(self, body: list[str], flush: list[str]) -> list[str]:
        """``body`` for the whole row: at once, or in stretches with ``flush`` after each."""
        if not self.is_long:
            return block("", [f"const int64_t low = 0, high = {self.whole};", *body])
        stretch = STRETCH * self.lanes
        high = f"const int64_t high = low + {stretch} < {self.whole} ? low + {stretch} : {self.whole};"
        return block(f"for (int64_t low = 0; low < {self.whole}; low += {stretch})", [high, *body, *flush])


# --- precision --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Walked:
    """The loops over the reduced axes, and the states whose value ends in a total of type double."""

    lines: list[str]
    doubled: list[Accumulator]


def _walk(nest: _Nest, axes: Sequence[int], body: list[str], lanes: int, own: _RowLoop | None = None) -> _Walked:
    """Loops over the reduced ``axes`` around ``body`` (and its ``own`` loop), which updates a row of ``lanes`` states.

    Float sums move to totals of type double after each stretch, if there is more than one.
    """
    extents = nest.loops.extents
    doubled = [state for state in nest.states if state.needs_double]
    if high((own.steps if own else 1) * prod(extents[axis] for axis in axes)) <= STRETCH:
        doubled = []
    flush = [line for state in doubled for line in _flush(state, lanes)]
    inner = own.around(body, flush) if own else list(body)
    steps, depth = (own.steps if own else 1), len(axes)
    flushed = not doubled or (own is not None and own.is_long)
    while depth and (flushed or high(steps * extents[axes[depth - 1]]) <= STRETCH):
        depth -= 1
        steps *= extents[axes[depth]]
        inner = loop(f"i{axes[depth]}", 0, extents[axes[depth]], inner)
    if depth:
        inner = _cut_axis(axes[depth - 1], extents[axes[depth - 1]], max(1, STRETCH // max(1, high(steps))), inner, flush)
    for axis in reversed(axes[: max(0, depth - 1)]):
        inner = loop(f"i{axis}", 0, extents[axis], inner)
    totals = [line for state in doubled for line in _declare_total(state, lanes)]
    return _Walked([*nest.declare(lanes), *totals, *inner, *flush], doubled)


def _cut_axis(axis: int, extent: int, stretch: int, body: list[str], flush: list[str]) -> list[str]:
    limit = f"s{axis} + {stretch} < {extent} ? s{axis} + {stretch} : {extent}"
    inner = [f"const int64_t end_{axis} = {limit};", *loop(f"i{axis}", f"s{axis}", f"end_{axis}", body), *flush]
    return block(f"for (int64_t s{axis} = 0; s{axis} < {extent}; s{axis} += {stretch})", inner)


def _declare_total(state: Accumulator, lanes: int) -> list[str]:
    begin = 0 if state.kind == "sum" else 1
    return [
        f"double total{state.slot}[{lanes}] __attribute__((aligned(64)));",
        f"for (int64_t l = 0; l < {lanes}; ++l) total{state.slot}[l] = {begin};",
    ]


def _sign(state: Accumulator) -> str:
    return "+" if state.kind == "sum" else "*"


def _flush(state: Accumulator, lanes: int) -> list[str]:
    move = f"total{state.slot}[l] {_sign(state)}= {state.name}[l]; {state.name}[l] = {state.identity};"
    return [f"for (int64_t l = 0; l < {lanes}; ++l) {{ {move} }}"]


def _merge_totals(state: Accumulator, lanes: int) -> list[str]:
    return [f"for (int64_t l = 1; l < {lanes}; ++l) total{state.slot}[0] {_sign(state)}= total{state.slot}[l];"]


def _total(state: Accumulator, lane: str) -> str:
    return f"((float)total{state.slot}{lane})"
