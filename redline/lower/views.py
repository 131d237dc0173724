"""Views in place of copies: what Reshape, Transpose, Slice and Expand do to the strides of the data they move.

Each function gives the view of the result, or None where the result is no strided view of the operand.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from redline.base.shapes import StaticShape, contiguous_strides, size, static
from redline.lower.program import View
from redline.ops import Op
from redline.ops.move import permutation
from redline.ops.slicing import slice_spans


def transpose(view: View, perm: Sequence[int]) -> View:
    return replace(view, shape=tuple(view.shape[p] for p in perm), strides=tuple(view.strides[p] for p in perm))


def expand(view: View, shape: StaticShape) -> View:
    """Broadcast: axes of extent 1 that grow, and new leading axes, get stride 0."""
    lead = len(shape) - len(view.shape)
    strides = (0,) * lead + tuple(
        s if e == view_e else 0 for s, view_e, e in zip(view.strides, view.shape, shape[lead:], strict=True)
    )
    return replace(view, shape=shape, strides=strides)


def narrow(view: View, axis: int, start: int, extent: int, step: int = 1) -> View:
    """Elements ``start, start + step, ...`` along ``axis``."""
    shape = (*view.shape[:axis], extent, *view.shape[axis + 1 :])
    strides = (*view.strides[:axis], view.strides[axis] * step, *view.strides[axis + 1 :])
    return replace(view, shape=shape, strides=strides, offset=view.offset + start * view.strides[axis])


def reshape(view: View, shape: StaticShape) -> View | None:
    """Splits and merges axes where the strides allow it; None where the elements would have to move."""
    if size(view.shape) == 0:
        return replace(view, shape=shape, strides=contiguous_strides(shape))
    axes = [(e, s) for e, s in zip(view.shape, view.strides, strict=True) if e != 1]
    strides: list[int] = []
    run, step = 1, 0  # a run of elements, ``step`` apart, that the next axes of the result are cut from
    for extent in reversed(shape):
        while run % extent:
            if not axes:
                return None
            outer, stride = axes.pop()
            if run != 1 and stride != run * step:
                return None
            run, step = run * outer, stride if run == 1 else step
        strides.append(step if extent != 1 else 0)
        run, step = run // extent, step * extent
    return replace(view, shape=shape, strides=tuple(reversed(strides)))


def _reshape(op: Op, view: View) -> View | None:
    return reshape(view, _result_shape(op))


def _result_shape(op: Op) -> StaticShape:
    """The shape that Reshape gives, 0 and -1 resolved as ONNX says."""
    source, wanted = op.shape(0), list(op.ints(1))
    if not op.attr("allowzero", 0):
        wanted = [source[i] if extent == 0 else extent for i, extent in enumerate(wanted)]
    known = size(e for e in wanted if e != -1)
    return tuple(size(source) // known if extent == -1 else extent for extent in wanted)


def _slice(op: Op, view: View) -> View:
    for axis, span in enumerate(slice_spans(op)):
        (count,) = static((span.count,), op.label)
        view = narrow(view, axis, span.start if count else 0, count, span.step)
    return view


def _transpose(op: Op, view: View) -> View:
    return transpose(view, permutation(op))


FORWARD: dict[str, Callable[[Op, View], View | None]] = {
    "Identity": lambda op, view: view,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Slice": _slice,
}


def forward(op: Op, view: View, shape: StaticShape) -> View | None:
    """The view of the result, of ``shape``, of moving operator ``op`` when its data lie as ``view`` says."""
    if op.name == "Expand":
        return expand(view, shape)
    return FORWARD[op.name](op, view) if op.name in FORWARD else None


def backward(op: Op, view: View) -> View | None:
    """Where the data of a Reshape, Transpose or Identity must lie for the result to lie as ``view`` says."""
    if op.name == "Identity":
        return view
    if op.name == "Reshape":
        return reshape(view, op.shape(0))
    if op.name == "Transpose":
        perm = permutation(op)
        return transpose(view, [perm.index(axis) for axis in range(len(perm))])
    return None
