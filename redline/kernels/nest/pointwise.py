"""Loops without a reduction: every element of the writes is a function of loads at its coordinates."""

from collections.abc import Sequence
from math import prod

from redline.base.extents import is_open, nominal
from redline.kernels import cexpr
from redline.kernels.bounds import Affine
from redline.kernels.ctext import block, loop, vectorized
from redline.kernels.expr import Load
from redline.kernels.nest.domain import Loops
from redline.kernels.nest.order import Order, Transposition, order_of, transposition
from redline.kernels.nest.problem import Problem
from redline.kernels.parts import Part, once, walk

TILE = 16  # rows and columns of a transposed tile
GRANULE = 64  # elements by which a one-dimensional range is cut


def part(problem: Problem, loops: Loops, num_chunks: int) -> Part:
    order = order_of(loops)
    crossing = transposition(loops, order)
    if crossing is not None:
        return _transposing(problem, loops, order, crossing, num_chunks)
    if order.vector is None:
        return once(element(problem, loops))
    inner = element(problem, loops)
    for axis in reversed(order.unrolled):
        inner = ["#pragma clang loop unroll(full)", *loop(f"i{axis}", 0, loops.extents[axis], inner)]
    extent = loops.extents[order.vector]
    outer = list(order.outer)
    if nominal(prod(loops.extents[a] for a in outer)) < num_chunks or not outer:
        return _cut_vectors(loops, order, inner)
    body = vectorized(f"i{order.vector}", 0, extent, inner)
    return walk([(f"i{axis}", loops.extents[axis]) for axis in outer], body, num_chunks)


def _cut_vectors(loops: Loops, order: Order, inner: list[str]) -> Part:
    """The vector axis itself is cut, for want of others; outer loops run whole in each chunk."""
    axis = order.vector
    assert axis is not None
    extent = loops.extents[axis]
    body = vectorized(f"i{axis}", f"begin * {GRANULE}", "last", inner)
    for outer in reversed(order.outer):
        body = loop(f"i{outer}", 0, loops.extents[outer], body)
    end = f"const int64_t last = end * {GRANULE} < {extent} ? end * {GRANULE} : {extent};"
    return Part(-(-extent // GRANULE), [end, *body])


def element(problem: Problem, loops: Loops, tiles: Sequence[tuple[Load, str]] = ()) -> list[str]:
    """The statements that compute and store one element; ``tiles`` are loads whose storage lies elsewhere."""
    coordinates = [f"i{axis}" for axis in range(len(loops.extents))]
    renderer = cexpr.Renderer(problem.reads, coordinates, extents=loops.extents)
    lines: list[str] = []
    for number, (load, text) in enumerate(tiles):
        lines.append(f"const {cexpr.c_type(load.dtype)} v{number} = {cexpr.from_storage(load.dtype, text)};")
        renderer.bind(load, f"v{number}")
    stores = []
    for number, (body, write, form) in enumerate(zip(loops.bodies, problem.writes, loops.stores, strict=True)):
        statements, value = renderer.emit(body)
        lines += statements
        stores.append(cexpr.store(write, f"out{number}", cexpr.affine_text(form, coordinates), value))
    return lines + stores


# --- transposition ----------------------------------------------------------------------------------------------------


def _transposing(problem: Problem, loops: Loops, order: Order, crossing: Transposition, num_chunks: int) -> Part:
    """Blocks of ``across`` by the vector axis; loads that run along ``across`` come through transposed tiles."""
    across, vector = crossing.across, order.vector
    assert vector is not None
    ends = [(axis, loops.extents[axis]) for axis in (across, vector)]
    lines = [f"const int64_t n{a} = {e} - b{a} * {TILE} < {TILE} ? {e} - b{a} * {TILE} : {TILE};" for a, e in ends]
    for number, (load, form) in enumerate(crossing.loads):
        lines += _fill_tile(problem, load, form, number, across, vector)
    whole = _tile_loops(problem, loops, crossing, across, vector, TILE, TILE)
    if any(is_open(extent) or extent % TILE for _, extent in ends):
        rest = _tile_loops(problem, loops, crossing, across, vector, f"n{across}", f"n{vector}")
        full = f"n{across} == {TILE} && n{vector} == {TILE}"
        lines += [*block(f"if ({full})", whole), *block("else", rest)]
    else:
        lines += whole
    outer = [(f"i{axis}", loops.extents[axis]) for axis in order.outer if axis != across]
    blocks = [(f"b{axis}", -(-loops.extents[axis] // TILE)) for axis in (across, vector)]
    return walk([*outer, *blocks], lines, num_chunks)


def _tile_loops(
    problem: Problem, loops: Loops, crossing: Transposition, across: int, vector: int, rows: str | int, columns: str | int
) -> list[str]:  # fmt: skip
    tiles = [(load, f"tile{n}[r{across} * {TILE} + r{vector}]") for n, (load, _) in enumerate(crossing.loads)]
    inner = [f"const int64_t i{vector} = b{vector} * {TILE} + r{vector};", *element(problem, loops, tiles)]
    row = [f"const int64_t i{across} = b{across} * {TILE} + r{across};", *vectorized(f"r{vector}", 0, columns, inner)]
    return loop(f"r{across}", 0, rows, row)


def _fill_tile(
    problem: Problem, load: Load, form: Affine, number: int, across: int, vector: int
) -> list[str]:  # fmt: skip
    names = {across: f"b{across} * {TILE}", vector: f"b{vector} * {TILE}"}
    base = cexpr.affine_text(form, [names.get(axis, f"i{axis}") for axis in range(max(a for a, _ in form.coefficients) + 1)])
    step, dtype = form.of(vector), load.dtype
    copy = f"tile{number}[r * {TILE} + c] = from{number}[r + c * {step}];"
    walk = [f"for (int64_t c = 0; c < n{vector}; ++c) for (int64_t r = 0; r < n{across}; ++r) {copy}"]
    lines = [
        f"{dtype.c} tile{number}[{TILE * TILE}] __attribute__((aligned(64)));",
        f"const {dtype.c} *from{number} = arg{load.operand} + {base};",
    ]
    fast = f"rl_transpose16_{dtype.size}(tile{number}, {TILE}, from{number}, {step});"
    return [*lines, *block(f"if (n{across} == {TILE} && n{vector} == {TILE})", [fast]), *block("else", walk)]
