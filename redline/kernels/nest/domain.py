"""The loops of a problem: its domain cut into boxes, each with flat addresses and as few axes as possible.

Three steps, each of which leaves the meaning as it is:

    boxes     where a condition such as ``i >= 1`` (padding, concatenation) changes its outcome along an axis, the domain
              is cut there, so that inside a box the condition is known and its ``where`` is gone
    split     where addresses divide an axis (``i // 3``, ``i % 3``), it becomes two axes and the divisions are gone
    merge     two axes that every address walks as one become one
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod

from redline.base import dtypes
from redline.base.extents import Undecided, is_open, nominal
from redline.kernels import bounds
from redline.kernels.bounds import Affine, Box
from redline.kernels.expr import Call, Expr, Lit, Load, call, children, index, integer, text, transform, walk, whole
from redline.kernels.nest.problem import Problem
from redline.kernels.prepare import linear_index, prepare

MAX_BOXES = 27
MAX_SPLITS = 6


@dataclass(frozen=True)
class Loops:
    """One box: ``extents`` of the written axes, then of the reduced ones, from 0. Every Load is flat.

    ``stores`` are element offsets of the writes; ``position`` the row-major position among the reduced coordinates.
    """

    extents: tuple[int, ...]
    num_written: int
    bodies: tuple[Expr, ...]
    results: tuple[Expr, ...]
    stores: tuple[Affine, ...]
    position: Affine

    @property
    def written(self) -> range:
        return range(self.num_written)

    @property
    def reduced(self) -> range:
        return range(self.num_written, len(self.extents))

    @property
    def num_elements(self) -> int:
        return prod(self.extents)

    def expressions(self) -> tuple[Expr, ...]:
        return self.bodies + self.results

    def forms(self) -> set[Affine]:
        """Every largest affine part of every address and value: all that is known of the coordinates."""
        found = {*self.stores, self.position}
        for expr in self.expressions():
            found |= _affine_parts(expr)
        return found

    def with_axes(self, change: Callable[[Affine], Expr], extents: tuple[int, ...], num_written: int) -> "Loops":
        """The same loops over other axes: ``change`` gives each affine form in terms of the new axes."""

        def leaf(node: Expr) -> Expr | None:
            form = bounds.affine(node) if node.dtype == dtypes.int64 else None
            return change(form) if form is not None and form.coefficients else None

        def moved(form: Affine) -> Affine:
            result = bounds.affine(change(form))
            assert result is not None
            return result

        box = bounds.box_of(extents)
        bodies = tuple(bounds.simplify(transform(body, leaf), box) for body in self.bodies)
        results = tuple(bounds.simplify(transform(result, leaf), box) for result in self.results)
        return Loops(extents, num_written, bodies, results, tuple(map(moved, self.stores)), moved(self.position))


def loops_of(problem: Problem) -> list[Loops]:
    """The loops that together compute ``problem``; none if it writes nothing."""
    if prod(problem.shape) == 0:
        return []
    return [_merged(_split(_in_box(problem, box))) for box in _boxes(problem)]


def _in_box(problem: Problem, box: Box) -> Loops:
    extents = tuple(high - low + 1 for low, high in box) + problem.domain[len(box) :]
    shift = [call("add", index(axis), integer(low)) for axis, (low, _) in enumerate(box)]
    shift += [index(axis) for axis in range(len(box), len(problem.domain))]
    inner = tuple(integer(0) if extent == 1 else index(axis) for axis, extent in enumerate(extents))
    inside = bounds.box_of(extents)

    def place(expr: Expr) -> Expr:
        moved = bounds.substitute_axes(expr, dict(enumerate(shift)))
        return prepare(bounds.substitute_axes(moved, dict(enumerate(inner))), problem.reads, inside)

    written = len(problem.shape)
    stores = [linear_index(write, [place(index(axis)) for axis in range(written)]) for write in problem.writes]
    position: Expr = integer(0)
    for axis in range(written, len(extents)):
        position = call("add", call("mul", position, integer(extents[axis])), inner[axis])
    return Loops(
        extents, written, tuple(map(place, problem.bodies)), tuple(map(place, problem.results)) if problem.reduction else (),
        tuple(map(_must_be_affine, stores)), _must_be_affine(position),
    )  # fmt: skip


def _must_be_affine(expr: Expr) -> Affine:
    form = bounds.affine(expr)
    assert form is not None
    return form


def _affine_parts(expr: Expr) -> set[Affine]:
    found, stack, seen = set(), [expr], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        form = bounds.affine(node) if node.dtype == dtypes.int64 else None
        if form is None:
            stack.extend(children(node))
        else:
            found.add(form)
    return found


# --- boxes ------------------------------------------------------------------------------------------------------------


def _boxes(problem: Problem) -> Iterator[Box]:
    """Boxes of the written axes within which as many conditions as possible are decided."""
    cuts: list[set[int]] = [set() for _ in problem.shape]
    places = {point for point in _break_points(problem) if _is_inside(problem, *point)}
    for axis, place in sorted(places, key=lambda point: (point[0], nominal(point[1]))):
        if all(_are_ordered(place, other) for other in cuts[axis]):
            wider = [{*c, place} if a == axis else c for a, c in enumerate(cuts)]
            cuts = wider if prod(len(c) + 1 for c in wider) <= MAX_BOXES else cuts
    ranges = [
        [(low, high - 1) for low, high in pairwise([0, *sorted(c, key=nominal), extent])]
        for c, extent in zip(cuts, problem.shape, strict=True)
    ]
    yield from product(*ranges)


def _is_inside(problem: Problem, axis: int, place: int) -> bool:
    """Whether the place is known to lie inside the axis, for whatever shape."""
    try:
        return 0 < place < problem.shape[axis]
    except Undecided:
        return False


def _are_ordered(a: int, b: int) -> bool:
    """Whether it is known which of two places comes first, or that they are one."""
    try:
        return a == b or a < b or b < a
    except Undecided:
        return False


def _break_points(problem: Problem) -> Iterator[tuple[int, int]]:
    """(axis, coordinate) where the outcome of a condition on one written axis may change."""
    everywhere = bounds.box_of(problem.domain)
    expressions = {node for expr in (*problem.bodies, *problem.epilogues) for node in walk(expr)}
    for node in expressions:
        if not isinstance(node, Call) or node.fn not in _SLACK or not all(map(bounds.is_coordinate, node.args)):
            continue
        if any(arg.dtype != dtypes.int64 for arg in node.args):
            continue
        form = bounds.affine(bounds.simplify(call("sub", *node.args, dtype=dtypes.int64), everywhere))
        axes = [axis for axis, _ in form.coefficients if axis < len(problem.shape)] if form is not None else []
        if form is not None and len(axes) == 1:
            for slack in _SLACK[node.fn]:
                with contextlib.suppress(Undecided):
                    yield from list(_threshold(form + Affine(-slack), axes[0], everywhere))


_SLACK = {"ge": (0,), "lt": (0,), "gt": (1,), "le": (1,), "eq": (0, 1), "ne": (0, 1)}


def _threshold(form: Affine, axis: int, box: Box) -> Iterator[tuple[int, int]]:
    """Where ``form >= 0`` begins or ends to hold for some and for all values of the other axes."""
    factor = form.of(axis)
    rest = bounds.interval((form + Affine(0, ((axis, -factor),))).expr(), box)
    assert rest is not None
    for end in rest:
        yield axis, -(end // factor) if factor > 0 else end // -factor + 1


# --- split ------------------------------------------------------------------------------------------------------------


def _split(loops: Loops) -> Loops:
    for _ in range(MAX_SPLITS):
        found = next(_divided_axes(loops), None)
        if found is None:
            break
        loops = _split_axis(loops, *found)
    return loops


def _divided_axes(loops: Loops) -> Iterator[tuple[int, int]]:
    """(axis, inner extent) such that splitting the axis so makes a division exact."""
    nodes = {node for expr in loops.expressions() for node in walk(expr)}
    found = []
    for node in nodes:
        if not isinstance(node, Call) or node.dtype != dtypes.int64 or node.fn not in ("floordiv", "mod"):
            continue
        if not isinstance(node.args[1], Lit):
            continue
        form, divisor = bounds.affine(node.args[0]), whole(node.args[1].value)
        closed = form is not None and not is_open(divisor)
        for axis, factor in form.coefficients if form is not None and closed else ():
            if is_open(factor) or is_open(loops.extents[axis]):
                continue
            period = divisor // factor if factor > 0 and divisor > 0 and divisor % factor == 0 else 1
            if 1 < period < loops.extents[axis] and loops.extents[axis] % period == 0:
                found.append((axis, period))
    yield from sorted(found)


def _split_axis(loops: Loops, axis: int, inner: int) -> Loops:
    """Axis becomes (axis // inner, axis % inner); the axes behind it move up by one."""

    def change(form: Affine) -> Expr:
        result = Affine(form.offset)
        for a, factor in form.coefficients:
            result += Affine(0, ((a + (a > axis), factor * inner if a == axis else factor),))
        return (result + Affine(0, ((axis + 1, form.of(axis)),) if form.of(axis) else ())).expr()

    extents = (*loops.extents[:axis], loops.extents[axis] // inner, inner, *loops.extents[axis + 1 :])
    return loops.with_axes(change, extents, loops.num_written + (axis < loops.num_written))


# --- merge ------------------------------------------------------------------------------------------------------------


def _merged(loops: Loops) -> Loops:
    """Axes of extent 1 are dropped and axes that all forms walk as one are merged."""
    while True:
        single = next((axis for axis, extent in enumerate(loops.extents) if extent == 1), None)
        if single is not None:
            loops = _without_axis(loops, single)
            continue
        pair = _mergeable(loops)
        if pair is None:
            return loops
        outer, inner = pair
        extents = tuple(e * loops.extents[outer] if a == inner else e for a, e in enumerate(loops.extents))
        loops = _without_axis(replace(loops, extents=extents), outer)


def _without_axis(loops: Loops, axis: int) -> Loops:
    def change(form: Affine) -> Expr:
        return Affine(form.offset, tuple((a - (a > axis), f) for a, f in form.coefficients if a != axis)).expr()

    extents = loops.extents[:axis] + loops.extents[axis + 1 :]
    return loops.with_axes(change, extents, loops.num_written - (axis < loops.num_written))


def _mergeable(loops: Loops) -> tuple[int, int] | None:
    """(outer, inner): two axes, both written or both reduced, such that one step of outer is a full run of inner."""
    forms = loops.forms()
    for axes in (loops.written, loops.reduced):
        for outer, inner in product(axes, axes):
            if outer != inner and all(form.of(outer) == form.of(inner) * loops.extents[inner] for form in forms):
                return outer, inner
    return None


def load_forms(loops: Loops) -> list[tuple[Load, Affine | None]]:
    """Every load with the affine form of its address; None where data decides the address."""
    nodes = {node for expr in loops.expressions() for node in walk(expr) if isinstance(node, Load)}
    return sorted(((node, bounds.affine(node.index[0])) for node in nodes), key=lambda item: text(item[0]))
