"""Expressions made ready for rendering: simplified for a box of coordinates, with safe, flat addresses.

After ``prepare`` every Load has one index, the element offset from its operand's first element; a coordinate that comes
from data is clamped to its axis, so that no input can make a kernel read foreign memory; and a ``where`` whose branches
load what may lie outside an operand has become a ``branch``, which does not evaluate the side it does not take.
"""

from collections.abc import Sequence

from redline.base import dtypes
from redline.base.extents import Undecided, low
from redline.kernels import bounds
from redline.kernels.expr import Call, Expr, Load, call, children, integer
from redline.kernels.problem import Operand


def prepare(expr: Expr, reads: Sequence[Operand], box: bounds.Box) -> Expr:
    """``expr`` for coordinates within ``box`` (empty: unknown)."""
    return _Preparation(reads, box).visit(bounds.simplify(expr, box))


def linear_index(operand: Operand, index: Sequence[Expr]) -> Expr:
    """The element offset of ``operand[index]``, affine where the coordinates are."""
    total: Expr = integer(0)
    for coordinate, stride in zip(index, operand.strides, strict=True):
        total = call("add", total, call("mul", coordinate, integer(stride)))
    form = bounds.affine(total)
    return total if form is None else form.expr()


class _Preparation:
    def __init__(self, reads: Sequence[Operand], box: bounds.Box) -> None:
        self.reads, self.box = reads, box
        self._done: dict[Expr, Expr] = {}
        self._stray: dict[Expr, bool] = {}

    def visit(self, node: Expr) -> Expr:
        if node not in self._done:
            self._done[node] = self._prepared(node)
        return self._done[node]

    def _prepared(self, node: Expr) -> Expr:
        if isinstance(node, Load):
            operand = self.reads[node.operand]
            index = [self._guarded(i, extent) for i, extent in zip(node.index, operand.shape, strict=True)]
            return Load(node.dtype, node.operand, (linear_index(operand, [self.visit(i) for i in index]),))
        if not isinstance(node, Call):
            return node
        stray = node.fn == "where" and any(map(self._may_stray, node.args[1:]))
        return Call(node.dtype, "branch" if stray else node.fn, tuple(map(self.visit, node.args)))

    def _guarded(self, index: Expr, extent: int) -> Expr:
        """``index`` kept inside the axis if it comes from data."""
        if bounds.is_coordinate(index) or self._inside(index, extent):
            return index
        last = extent - 1 if low(extent) > 0 else max(0, extent - 1)
        return call("clamp", index, integer(0), integer(last), dtype=dtypes.int64)

    def _inside(self, index: Expr, extent: int) -> bool:
        known = bounds.interval(index, self.box)
        try:
            return known is not None and known[0] >= 0 and known[1] < extent
        except Undecided:
            return False

    def _may_stray(self, node: Expr) -> bool:
        """Whether evaluating ``node`` where it is not asked for might read outside an operand."""
        if node not in self._stray:
            strays = isinstance(node, Load) and any(
                bounds.is_coordinate(i) and not self._inside(i, extent)
                for i, extent in zip(node.index, self.reads[node.operand].shape, strict=True)
            )
            self._stray[node] = strays or any(map(self._may_stray, children(node)))
        return self._stray[node]
