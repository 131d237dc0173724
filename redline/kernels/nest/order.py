"""Which axis the vectors run along, and in what order the others are walked.

An axis is good for vectors when memory is contiguous along it. Short axes that lie inside the vector axis in memory
(the three channels of an image) are unrolled within the vector loop: the compiler then interleaves vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redline.base.extents import is_open, nominal
from redline.kernels.bounds import Affine
from redline.kernels.expr import Load
from redline.kernels.nest.domain import Loops, load_forms

MAX_UNROLLED = 8
SHORT = 16


@dataclass(frozen=True)
class Order:
    """``outer`` axes outermost first, the ``vector`` axis (None: no axes at all), then the ``unrolled`` ones."""

    outer: tuple[int, ...]
    vector: int | None
    unrolled: tuple[int, ...] = ()


def vector_axis(loops: Loops, axes: Sequence[int], count_stores: bool = True) -> int | None:
    """The axis among ``axes`` along which memory is walked best; reductions store too seldom for it to count."""
    return max(axes, key=lambda axis: (_contiguity(loops, axis, count_stores), nominal(loops.extents[axis])), default=None)


def _contiguity(loops: Loops, axis: int, count_stores: bool) -> float:
    stores = loops.stores if count_stores and axis in loops.written else ()
    steps = [2 * _ease(store.of(axis), False) for store in stores]
    steps += [_ease(form.of(axis), True) for _, form in load_forms(loops) if form is not None]
    extent = nominal(loops.extents[axis])
    return sum(steps) * (0.1 if extent < 4 else 0.4 if extent < 8 else 0.8 if extent < SHORT else 1)


def _ease(step: int, broadcast_is_free: bool) -> float:
    if step == 1:
        return 1
    if step == 0:
        return 0.8 if broadcast_is_free else 0
    return 0.3 if abs(nominal(step)) <= MAX_UNROLLED else 0


def order_of(loops: Loops) -> Order:
    """The order of the written axes."""
    axes = list(loops.written)
    aligned = [a for a in axes if nominal(loops.extents[a]) >= SHORT and all(store.of(a) == 1 for store in loops.stores)]
    vector = aligned[0] if aligned else vector_axis(loops, axes)
    if vector is None:
        return Order((), None)
    reach = abs(nominal(loops.stores[0].of(vector)))
    short = [a for a in axes if a != vector and not is_open(loops.extents[a]) and loops.extents[a] <= MAX_UNROLLED]
    unrolled = [a for a in short if _step(loops, a) < reach]
    outer = [a for a in axes if a != vector and a not in unrolled]
    by_step = lambda a: -_step(loops, a)  # noqa: E731
    return Order(tuple(sorted(outer, key=by_step)), vector, tuple(sorted(unrolled, key=by_step)))


def _step(loops: Loops, axis: int) -> int:
    return abs(nominal(loops.stores[0].of(axis)))


@dataclass(frozen=True)
class Transposition:
    """Loads that are contiguous along ``across`` while the vectors run along another axis."""

    across: int
    loads: tuple[tuple[Load, Affine], ...]


def transposition(loops: Loops, order: Order) -> Transposition | None:
    """The loads worth staging through transposed tiles; None where memory is walked well as it is."""
    if order.vector is None or order.unrolled or nominal(loops.extents[order.vector]) < SHORT:
        return None
    crossing = [
        (load, form) for load, form in load_forms(loops) if form is not None and abs(nominal(form.of(order.vector))) > 1
    ]
    for axis in reversed(order.outer):
        found = tuple((load, form) for load, form in crossing if form.of(axis) == 1)
        if found and nominal(loops.extents[axis]) >= SHORT:
            return Transposition(axis, found)
    return None
