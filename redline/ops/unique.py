"""Unique: the distinct elements of a tensor, or its distinct slices along an axis, whose number a run may have to find.

For a run it is a sort, the places where the sorted sequence changes, and gathers; slices are sorted by their elements from the
last to the first, each time keeping the order of equals.
"""

import numpy as np

from redline.base import dtypes, shapes
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make, make_node
from redline.ops.rules import cast, ints, reshaped, scalar, transposed, wide

MOST_COLUMNS = 64  # elements of a slice: each is a sort of its own


def _unique(op: Op, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values (or slices), where each first occurs, which one each element is, and how often each occurs."""
    axis = None if op.attr("axis") is None else op.axis(0, x.ndim)
    values, first, inverse, counts = np.unique(
        wide(x), return_index=True, return_inverse=True, return_counts=True, axis=axis, equal_nan=False
    )
    inverse = inverse.reshape(-1)
    if not op.attr("sorted", 1):
        order = np.argsort(first)
        values, first, counts = np.take(values, order, axis or 0), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return values, first, inverse, counts


def _infer(op: Op) -> list[TensorType]:
    kinds = (op.type(0).dtype, dtypes.int64, dtypes.int64, dtypes.int64)
    if op.attr("count") is None:
        return [TensorType(kind, result.shape) for kind, result in zip(kinds, _unique(op, op.const(0)), strict=True)]
    count, (axis, length, _) = int(op.attr("count")), _slices(op)
    shape = op.shape(0)
    values = (count,) if axis is None else (*shape[:axis], count, *shape[axis + 1 :])
    return [TensorType(kind, found) for kind, found in zip(kinds, (values, (count,), (length,), (count,)), strict=True)]


def _slices(op: Op) -> tuple[int | None, int, int]:
    """(the axis, or None for the elements of the flattened tensor; how many slices; the elements of each)."""
    shape = op.shape(0)
    if op.attr("axis") is None:
        return None, shapes.size(shape), 1
    axis = op.axis(0, len(shape))
    return axis, shape[axis], shapes.size(e for a, e in enumerate(shape) if a != axis)


def _bound(op: Op) -> int | None:
    _, length, width = _slices(op)
    return None if op.is_const(0) or length < 1 or not 1 <= width <= MOST_COLUMNS else length


def _decomposed(op: Op) -> tuple[Value, ...] | None:
    if op.attr("count") is None:
        return None
    axis, length, width = _slices(op)
    rows = _rows(op.value(0), axis, length, width)
    order = _order(rows, length, width)
    ordered = make("Gather", rows, order, axis=0)
    starts = make("TruePositions", _changes(ordered, length), count=op.attr("count"), slot=op.attr("slot"))
    end = make("Add", make("ReduceMax", order, ints([0]), keepdims=1), ints([1]))  # the length, also where that is open
    edges = make("Concat", starts, end, axis=0)
    counts = make("Sub", _part(edges, 1, None), _part(edges, 0, int(op.attr("count"))))
    first = make("Gather", order, starts)
    found, chosen = make("Gather", ordered, starts, axis=0), None
    if not op.attr("sorted", 1):
        chosen = _argsort(first, int(op.attr("count")))
        found, first, counts = (make("Gather", value, chosen, axis=0) for value in (found, first, counts))
    results = [_placed(op, found, axis), first]
    if op.num_outputs > 2:
        results += [_inverse(_changes(ordered, length), order, length, chosen, int(op.attr("count"))), counts]
    return tuple(results[: op.num_outputs])


def _rows(x: Value, axis: int | None, length: int, width: int) -> Value:
    """The slices as the rows of a matrix."""
    if axis is not None and axis:
        x = transposed(x, (axis, *(a for a in range(len(x.shape)) if a != axis)))
    return reshaped(x, (length, width))


def _order(rows: Value, length: int, width: int) -> Value:
    """Which row is where among the sorted ones."""
    order = None
    for column in reversed(range(width)):
        keys = reshaped(make("Slice", rows, ints([column]), ints([column + 1]), ints([1])), (length,))
        turn = _argsort(keys if order is None else make("Gather", keys, order), length)
        order = turn if order is None else make("Gather", order, turn)
    assert order is not None, "a slice has elements"
    return order


def _argsort(x: Value, length: int) -> Value:
    """The positions of the elements of a vector in ascending order, equals in order of position."""
    return make_node("TopK", (x, ints([length])), {"largest": 0}, num_outputs=2).outputs()[1]


def _changes(ordered: Value, length: int) -> Value:
    """For each of the sorted rows whether it differs from the one before; the first does."""
    if length == 1:
        return cast(ints([1]), dtypes.bool_)
    differs = cast(make("Not", make("Equal", _part(ordered, 1, None), _part(ordered, 0, length - 1))), dtypes.int64)
    is_wide = ordered.shape[1] != 1
    any_differs = make("ReduceMax", differs, ints([1]), keepdims=0) if is_wide else reshaped(differs, (length - 1,))
    return cast(make("Concat", ints([1]), any_differs, axis=0), dtypes.bool_)


def _part(x: Value, start: int, end: int | None) -> Value:
    """Rows ``start`` to ``end`` of ``x``; None: to the last."""
    return make("Slice", x, ints([start]), ints([(1 << 62) if end is None else end]), ints([0]))


def _inverse(changes: Value, order: Value, length: int, chosen: Value | None, count: int) -> Value:
    """Which of the results each slice is: its rank among the sorted ones, at its own place."""
    rank = make("Sub", make("CumSum", cast(changes, dtypes.int64), scalar(0, dtypes.int64)), scalar(1, dtypes.int64))
    inverse = make("Gather", rank, _argsort(order, length))
    return inverse if chosen is None else make("Gather", _argsort(chosen, count), inverse)


def _placed(op: Op, found: Value, axis: int | None) -> Value:
    """The rows found as slices along the axis."""
    count, shape = int(op.attr("count")), op.shape(0)
    if axis is None:
        return reshaped(found, (count,))
    others = tuple(e for a, e in enumerate(shape) if a != axis)
    whole = reshaped(found, (count, *others))
    return transposed(whole, (*range(1, axis + 1), 0, *range(axis + 1, len(shape)))) if axis else whole


define("Unique", _infer, _unique, _decomposed, static=(0,), bound=_bound)
