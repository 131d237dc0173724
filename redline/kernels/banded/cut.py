"""What reads the result of a convolution, cut to a band of rows: the same problem for those rows alone.

The rows that the convolution makes lie in scratch with their padding, so that no band of a reader is at a border. A reader
is cut only where nothing but the places of its operands depends on the row: one cut serves all bands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redline.base.shapes import StaticShape
from redline.kernels import conv, nest, pool
from redline.kernels.expr import Expr, Index, Load, children
from redline.kernels.functions import extreme
from redline.kernels.problem import Operand

ROWS = 1  # the axis of images that is cut


@dataclass(frozen=True)
class Window:
    """What of the maker's image a row of a reader's result needs: ``span`` rows, every ``step`` rows, ``before`` of the first
    one above its own. ``left`` and ``right``: columns of padding; ``fill``: what stands there, None where nothing does.
    """

    step: int = 1
    span: int = 1
    before: int = 0
    left: int = 0
    right: int = 0
    fill: float | None = None

    def rows(self, count: int) -> int:
        """Rows that ``count`` rows of the result need."""
        return (count - 1) * self.step + self.span

    @property
    def looks_ahead(self) -> bool:
        """Whether a band needs rows below those that belong to it."""
        return self.span - self.before > self.step


@dataclass(frozen=True)
class Cut:
    """``problem`` makes a band, ``rows`` of its result. ``steps``: elements from one row of an operand to the next, reads then
    writes; 0 where all rows read the same, and where the maker's rows are read. ``images``: the same from image to image.
    """

    problem: Any
    rows: int
    steps: StaticShape
    images: StaticShape


def window(problem: Any) -> Window | None:
    """What ``problem`` reads of an image that is its first operand; None where it cannot be cut."""
    if isinstance(problem, nest.Problem):
        return Window()
    if isinstance(problem, conv.Problem):
        if problem.rank != 2 or not problem.w.constant:
            return None
        span = (problem.w.shape[2] - 1) * problem.dilations[0] + 1
        padded = any(problem.pads)
        top, left, _, right = problem.pads
        return Window(problem.strides[0], span, top, left, right, problem.pad_value if padded else None)
    if isinstance(problem, pool.Problem) and problem.kind == "max" and len(problem.windows) == 2:
        down, across = problem.windows
        span, padded = (down.kernel - 1) * down.dilation + 1, any(w.pad_begin or w.pad_end for w in problem.windows)
        fill = extreme(problem.x.dtype, lowest=True) if padded else None
        return Window(down.stride, span, down.pad_begin, across.pad_begin, across.pad_end, fill)
    return None


def cut(problem: Any, place: int, image: Operand, held: Operand, rows: int) -> Cut | None:
    """``problem`` for ``rows`` rows of ``image``, the maker's result, which is operand ``place`` of it and lies as ``held``
    does; None where it cannot be cut.
    """
    if isinstance(problem, nest.Problem):
        return _cut_nest(problem, place, image, held, rows)
    seen = window(problem)
    if seen is None or place or problem.reads[0] != image or problem.writes[0].shape[ROWS] * seen.step != image.shape[ROWS]:
        return None
    loaded, images = (_axes((problem.epilogue,), axis) for axis in (ROWS, 0))
    if loaded is None or images is None:
        return None
    out_rows = rows // seen.step
    shape = (1, seen.rows(out_rows), image.shape[2] + seen.left + seen.right, image.shape[3])
    x = replace(held, shape=shape)
    kept = 2 if isinstance(problem, conv.Problem) else 1
    extra = [_narrowed(o, {loaded[i]: out_rows} if i in loaded else {}) for i, o in enumerate(problem.reads)][kept:]
    extra = [_narrowed(o, {images[i]: 1} if i in images else {}) for i, o in enumerate(extra, kept)]
    out = _narrowed(problem.writes[0], {ROWS: out_rows, 0: 1})
    if isinstance(problem, conv.Problem):
        small: Any = replace(problem, x=x, out=out, extra=tuple(extra), pads=(0,) * 4)
    else:
        bare = tuple(replace(w, pad_begin=0, pad_end=0) for w in problem.windows)
        small = replace(problem, reads=(x, *extra), out=out, windows=bare)
    moves = (_steps(problem, place, found, axis) for found, axis in ((loaded, ROWS), (images, 0)))
    return Cut(small, out_rows, *moves)


def _cut_nest(problem: nest.Problem, place: int, image: Operand, held: Operand, rows: int) -> Cut | None:
    read = problem.reads[place]
    inner = [axis for axis, (e, s) in enumerate(zip(read.shape, read.strides, strict=True)) if (e, s) == _row(image)]
    if image.shape[0] != 1 or len(inner) != 1:
        return None
    down = inner[0]
    beside = sum(
        (e - 1) * s for axis, (e, s) in enumerate(zip(read.shape, read.strides, strict=True)) if axis != down and e > 1
    )
    axis = next(
        (a for a, e in enumerate(problem.shape) if e == image.shape[ROWS] and _loads_along(problem, place, down, a)), None
    )
    loaded = None if axis is None else _axes((*problem.bodies, *problem.epilogues), axis)
    if axis is None or loaded is None or beside >= image.strides[ROWS]:
        return None
    reads = [_narrowed(o, {loaded[i]: rows} if i in loaded else {}) for i, o in enumerate(problem.reads)]
    reads[place] = replace(
        reads[place], strides=tuple(held.strides[ROWS] if a == down else s for a, s in enumerate(read.strides))
    )
    small = replace(problem, reads=tuple(reads), writes=tuple(_narrowed(w, {axis: rows}) for w in problem.writes))
    return Cut(small, rows, _steps(problem, place, loaded, axis), (0,) * len(problem.reads + problem.writes))


def _row(image: Operand) -> tuple[int, int]:
    return image.shape[ROWS], image.strides[ROWS]


def _loads_along(problem: nest.Problem, place: int, down: int, axis: int) -> bool:
    found = _axes((*problem.bodies, *problem.epilogues), axis)
    return found is not None and found.get(place) == down


def _steps(problem: Any, place: int, loaded: Mapping[int, int], axis: int) -> StaticShape:
    """Of every operand: its stride along what it has of ``axis``."""
    reads = [o.strides[loaded[i]] if i in loaded and i != place else 0 for i, o in enumerate(problem.reads)]
    return (*reads, *(write.strides[axis] for write in problem.writes))


def _narrowed(operand: Operand, extents: Mapping[int, int]) -> Operand:
    """``operand`` with other extents along some axes, but for those that it repeats."""
    return replace(operand, shape=tuple(extents.get(axis, extent) for axis, extent in enumerate(operand.shape)))


def _axes(exprs: Sequence[Expr], axis: int) -> dict[int, int] | None:
    """For each operand that is loaded along ``axis``, which of its own axes that is; None where more depends on ``axis``."""
    found: dict[int, int | None] = {}

    def visit(node: Expr) -> bool:
        if isinstance(node, Index):
            return node.axis != axis
        if not isinstance(node, Load):
            return all(map(visit, children(node)))
        along = [place for place, each in enumerate(node.index) if isinstance(each, Index) and each.axis == axis]
        others = all(visit(each) for place, each in enumerate(node.index) if place not in along)
        where = along[0] if along else None
        return others and len(along) < 2 and found.setdefault(node.operand, where) == where

    seen: Callable[[Expr], bool] = visit
    if not all(map(seen, exprs)):
        return None
    return {operand: where for operand, where in found.items() if where is not None}
