"""Scalar expressions: what one output element is, as a function of its coordinates.

The same tree is a pointwise kernel's body, a matmul's epilogue and a reduction's prologue; c.py files render it as C,
triton.py files as Triton, and ``evaluate`` here computes it with numpy. An expression never names an operator of the
graph. Fusion is substitution: a producer's expression takes the place of the load of its result.

Coordinates: ``Index(axis)`` is the coordinate along output axis ``axis``; in a reduction the reduced axes follow the
output axes. ``Load`` reads an operand at any coordinates, affine or not. ``Acc`` is the kernel's own result (the dot
product, the reduced value) in an epilogue.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.extents import Undecided, is_open


@dataclass(frozen=True, eq=False, repr=False)
class Expr:
    """A scalar of type ``dtype``. Equal by structure; hash and text take time linear in the distinct subexpressions."""

    dtype: DType

    @cached_property
    def digest(self) -> bytes:
        """A hash of the whole structure: comparing two trees never walks them, however much they share."""
        parts = (getattr(self, f.name) for f in fields(self))
        return hashlib.sha256(repr((type(self).__name__, *map(_digest_part, parts))).encode()).digest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Expr) and self.digest == other.digest)

    def __repr__(self) -> str:
        return text(self)


@dataclass(frozen=True, eq=False, repr=False)
class Lit(Expr):
    value: float | int | bool


@dataclass(frozen=True, eq=False, repr=False)
class Index(Expr):
    """The coordinate along ``axis``, an int64."""

    axis: int


@dataclass(frozen=True, eq=False, repr=False)
class Load(Expr):
    """Element ``index`` of read operand ``operand``; one expression per axis of the operand."""

    operand: int
    index: tuple[Expr, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Acc(Expr):
    """Value number ``slot`` of the kernel's own computation, available in its epilogue."""

    slot: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Call(Expr):
    """A primitive of functions.py applied to arguments, e.g. ``add``, ``exp``, ``where``, ``cast``."""

    fn: str
    args: tuple[Expr, ...]


def _digest_part(part: object) -> object:
    if isinstance(part, tuple):
        return tuple(map(_digest_part, part))
    return part.digest if isinstance(part, Expr) else part


def lit(value: float | int | bool, dtype: DType) -> Lit:
    return Lit(dtype, value)


def index(axis: int) -> Index:
    return Index(dtypes.int64, axis)


def integer(value: int) -> Lit:
    """A coordinate literal."""
    return Lit(dtypes.int64, whole(value))


def whole(value: float | int | bool) -> int:
    """The value of an integer literal: an int, or an open extent as it is."""
    return value if is_open(value) else int(value)  # type: ignore[return-value]


def call(fn: str, *args: Expr, dtype: DType | None = None) -> Expr:
    """``fn(args)``; its type is that of the last argument unless given (comparisons give bool, casts their target)."""
    return _simplify(Call(dtype or args[-1].dtype, fn, tuple(args)))


def cast(value: Expr, dtype: DType) -> Expr:
    return value if value.dtype == dtype else Call(dtype, "cast", (value,))


def coordinates(rank: int) -> tuple[Expr, ...]:
    """``Index(0) .. Index(rank - 1)``."""
    return tuple(index(axis) for axis in range(rank))


def children(expr: Expr) -> tuple[Expr, ...]:
    if isinstance(expr, Call):
        return expr.args
    return expr.index if isinstance(expr, Load) else ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Every distinct subexpression, arguments before what uses them."""
    seen: set[Expr] = set()
    stack = [(expr, False)]
    while stack:
        node, expanded = stack.pop()
        if node in seen:
            continue
        if expanded:
            seen.add(node)
            yield node
        else:
            stack.append((node, True))
            stack += [(child, False) for child in reversed(children(node))]


def transform(expr: Expr, leaf: Callable[[Expr], Expr | None]) -> Expr:
    """``expr`` with every subexpression for which ``leaf`` gives a replacement replaced, and the rest rebuilt."""
    done: dict[Expr, Expr] = {}

    def visit(node: Expr) -> Expr:
        if node not in done:
            done[node] = leaf(node) or _rebuild(node, visit)
        return done[node]

    return visit(expr)


def _rebuild(node: Expr, visit: Callable[[Expr], Expr]) -> Expr:
    if isinstance(node, Call):
        return _simplify(replace(node, args=tuple(map(visit, node.args))))
    if isinstance(node, Load):
        return replace(node, index=tuple(map(visit, node.index)))
    return node


def substitute_indices(expr: Expr, coordinates: Sequence[Expr]) -> Expr:
    """``expr`` at other coordinates: Index(axis) becomes ``coordinates[axis]``."""
    return transform(expr, lambda node: coordinates[node.axis] if isinstance(node, Index) else None)


def loads(expr: Expr) -> list[Load]:
    return [node for node in walk(expr) if isinstance(node, Load)]


def text(expr: Expr) -> str:
    """One line that identifies ``expr``: its distinct subexpressions in order, each naming its arguments by number."""
    number: dict[Expr, str] = {}
    parts: list[str] = []
    for node in walk(expr):
        if isinstance(node, Lit):
            number[node] = f"{node.value!r}:{node.dtype}"
        elif isinstance(node, Index):
            number[node] = f"i{node.axis}"
        elif isinstance(node, Acc):
            number[node] = f"acc{node.slot}:{node.dtype}"
        else:
            name = node.fn if isinstance(node, Call) else f"load{node.operand}" if isinstance(node, Load) else "?"
            number[node] = f"%{len(parts)}"
            parts.append(f"%{len(parts)}={name}:{node.dtype}({','.join(number[c] for c in children(node))})")
    return "; ".join(parts) if parts else number[expr]


def _simplify(node: Call) -> Expr:
    """Folds the integer arithmetic of coordinates: x+0, x*1, x*0, x//1, x%1 and literals. Never touches floats."""
    if node.dtype != dtypes.int64 or len(node.args) != 2 or node.fn not in _FOLD:
        return node
    a, b = node.args
    if isinstance(a, Lit) and isinstance(b, Lit) and not (b.value == 0 and node.fn in ("floordiv", "mod")):
        return _folded(node, whole(a.value), whole(b.value))
    zero, one = integer(0), integer(1)
    if node.fn == "add":
        return b if a == zero else a if b == zero else node
    if node.fn == "sub":
        return a if b == zero else node
    if node.fn == "mul":
        return zero if zero in (a, b) else b if a == one else a if b == one else node
    if b == one:
        return a if node.fn == "floordiv" else zero
    return node


def _folded(node: Call, a: int, b: int) -> Expr:
    try:
        return integer(_FOLD[node.fn](a, b))
    except Undecided:
        return node


_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}
