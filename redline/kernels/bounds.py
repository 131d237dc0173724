"""What is known about coordinate arithmetic: ranges, affine forms, and expressions simplified for a box of coordinates.

A coordinate expression is int64 arithmetic over Index and Lit. A *box* gives each axis its (lowest, highest) value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from redline.base import dtypes
from redline.base.extents import Undecided, is_open
from redline.kernels.expr import Call, Expr, Index, Lit, Load, call, children, integer, lit, transform, whole

Box = Sequence[tuple[int, int]]
Interval = tuple[int, int]


def box_of(extents: Sequence[int]) -> tuple[Interval, ...]:
    return tuple((0, extent - 1 if is_open(extent) else max(0, extent - 1)) for extent in extents)


def is_coordinate(expr: Expr) -> bool:
    """Whether ``expr`` is made of coordinates and literals alone."""
    if isinstance(expr, Call):
        return all(map(is_coordinate, expr.args))
    return isinstance(expr, Index) or (isinstance(expr, Lit) and expr.dtype in (dtypes.int64, dtypes.bool_))


@dataclass(frozen=True)
class Affine:
    """``offset + sum(coefficients[axis] * Index(axis))``; axes with coefficient 0 are left out."""

    offset: int
    coefficients: tuple[tuple[int, int], ...] = ()

    def of(self, axis: int) -> int:
        return dict(self.coefficients).get(axis, 0)

    def __add__(self, other: "Affine") -> "Affine":
        total = dict(self.coefficients)
        for axis, factor in other.coefficients:
            total[axis] = total.get(axis, 0) + factor
        return Affine(self.offset + other.offset, tuple(sorted((a, f) for a, f in total.items() if f)))

    def scaled(self, factor: int) -> "Affine":
        if factor == 0:
            return Affine(0)
        return Affine(self.offset * factor, tuple((axis, f * factor) for axis, f in self.coefficients))

    def expr(self) -> Expr:
        total: Expr = integer(0)
        for axis, factor in self.coefficients:
            total = call("add", total, call("mul", Index(dtypes.int64, axis), integer(factor)))
        if self.offset < 0 and self.coefficients:
            return call("sub", total, integer(-self.offset))
        return call("add", total, integer(self.offset))


def affine(expr: Expr) -> Affine | None:
    """``expr`` as an affine form of the coordinates; None if it is not one."""
    if isinstance(expr, Lit) and expr.dtype == dtypes.int64:
        return Affine(whole(expr.value))
    if isinstance(expr, Index):
        return Affine(0, ((expr.axis, 1),))
    if not isinstance(expr, Call) or expr.dtype != dtypes.int64 or expr.fn not in ("add", "sub", "mul", "neg"):
        return None
    parts = [affine(arg) for arg in expr.args]
    if any(part is None for part in parts):
        return None
    a, b = parts[0], parts[-1]
    assert a is not None and b is not None
    if expr.fn == "neg":
        return a.scaled(-1)
    if expr.fn != "mul":
        return a + (b if expr.fn == "add" else b.scaled(-1))
    if a.coefficients and b.coefficients:
        return None
    return b.scaled(a.offset) if not a.coefficients else a.scaled(b.offset)


def interval(expr: Expr, box: Box) -> Interval | None:
    """The lowest and highest value of an int64 (or bool: 0 and 1) expression over the box; None if unknown."""
    try:
        return _interval(expr, box)
    except Undecided:
        return None


def _interval(expr: Expr, box: Box) -> Interval | None:
    if isinstance(expr, Lit):
        return (whole(expr.value), whole(expr.value)) if not expr.dtype.is_float else None
    if isinstance(expr, Index):
        return box[expr.axis] if expr.axis < len(box) else None
    if not isinstance(expr, Call):
        return None
    form = affine(expr)
    if form is not None:
        return _affine_interval(form, box)
    if expr.fn not in _INTERVALS or (expr.dtype != dtypes.int64 and expr.dtype != dtypes.bool_):
        return None
    if any(arg.dtype not in (dtypes.int64, dtypes.bool_) for arg in expr.args):
        return None
    parts = [interval(arg, box) for arg in expr.args]
    known = [part for part in parts if part is not None]
    return _INTERVALS[expr.fn](*known) if len(known) == len(parts) else None


def _affine_interval(form: Affine, box: Box) -> Interval | None:
    low = high = form.offset
    for axis, factor in form.coefficients:
        if axis >= len(box):
            return None
        ends = (box[axis][0] * factor, box[axis][1] * factor)
        low, high = low + min(ends), high + max(ends)
    return low, high


def _product(a: Interval, b: Interval) -> Interval:
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def _floor_division(a: Interval, b: Interval) -> Interval | None:
    return (a[0] // b[0], a[1] // b[0]) if b[0] == b[1] > 0 else None


def _modulo(a: Interval, b: Interval) -> Interval | None:
    if not b[0] == b[1] > 0:
        return None
    same = a[0] // b[0] == a[1] // b[0]
    return (a[0] % b[0], a[1] % b[0]) if same else (0, b[0] - 1)


def _decided(true: bool, false: bool) -> Interval:
    return (1, 1) if true else (0, 0) if false else (0, 1)


_INTERVALS: dict[str, Callable[..., Interval | None]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _product,
    "neg": lambda a: (-a[1], -a[0]),
    "floordiv": _floor_division,
    "mod": _modulo,
    "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "clamp": lambda x, a, b: (min(max(x[0], a[0]), b[0]), min(max(x[1], a[1]), b[1])),
    "lt": lambda a, b: _decided(a[1] < b[0], a[0] >= b[1]),
    "le": lambda a, b: _decided(a[1] <= b[0], a[0] > b[1]),
    "gt": lambda a, b: _decided(a[0] > b[1], a[1] <= b[0]),
    "ge": lambda a, b: _decided(a[0] >= b[1], a[1] < b[0]),
    "eq": lambda a, b: _decided(a[0] == a[1] == b[0] == b[1], a[1] < b[0] or a[0] > b[1]),
    "ne": lambda a, b: _decided(a[1] < b[0] or a[0] > b[1], a[0] == a[1] == b[0] == b[1]),
    "and": lambda a, b: (a[0] & b[0], a[1] & b[1]),
    "or": lambda a, b: (a[0] | b[0], a[1] | b[1]),
    "not": lambda a: (1 - a[1], 1 - a[0]),
    "where": lambda c, a, b: a if c == (1, 1) else b if c == (0, 0) else (min(a[0], b[0]), max(a[1], b[1])),
}


def simplify(expr: Expr, box: Box) -> Expr:
    """``expr`` with what is certain over the box folded: decided conditions, divisions of known remainder, constants."""
    memo: dict[Expr, Expr] = {}

    def visit(node: Expr) -> Expr:
        if node not in memo:
            memo[node] = _fold(_children_visited(node), box)
        return memo[node]

    def _children_visited(node: Expr) -> Expr:
        if isinstance(node, Call) and node.fn == "where":
            condition = visit(node.args[0])
            if isinstance(condition, Lit):
                return visit(node.args[1] if condition.value else node.args[2])
            return Call(node.dtype, "where", (condition, visit(node.args[1]), visit(node.args[2])))
        if isinstance(node, Call):
            return call(node.fn, *map(visit, node.args), dtype=node.dtype)
        if isinstance(node, Load):
            return Load(node.dtype, node.operand, tuple(map(visit, node.index)))
        return node

    return visit(expr)


def _fold(node: Expr, box: Box) -> Expr:
    if not isinstance(node, (Call, Index)) or node.dtype not in (dtypes.int64, dtypes.bool_):
        return node
    known = interval(node, box)
    if known is not None and known[0] == known[1]:
        return integer(known[0]) if node.dtype == dtypes.int64 else lit(bool(known[0]), dtypes.bool_)
    if isinstance(node, Call) and node.fn in ("floordiv", "mod") and isinstance(node.args[1], Lit):
        return _fold_division(node, whole(node.args[1].value), box)
    if isinstance(node, Call) and node.fn in ("and", "or") and isinstance(node.args[0], Lit | Call):
        return _fold_logic(node)
    form = affine(node)
    return form.expr() if form is not None else node


def _fold_logic(node: Call) -> Expr:
    neutral = node.fn == "and"
    for known, other in (node.args, node.args[::-1]):
        if isinstance(known, Lit):
            return other if bool(known.value) == neutral else known
    return node


def _fold_division(node: Call, divisor: int, box: Box) -> Expr:
    """(d*q + r) // d -> q and (d*q + r) % d -> r where r stays within [0, d)."""
    try:
        return _divided(node, divisor, box)
    except Undecided:
        return node


def _divided(node: Call, divisor: int, box: Box) -> Expr:
    form = _sum_of(node.args[0])
    if divisor <= 0:
        return node
    exact = {atom: factor for atom, factor in form.factors.items() if _divides(divisor, factor)}
    rest = _Sum(form.offset % divisor, {a: f for a, f in form.factors.items() if a not in exact})
    quotient = _Sum(form.offset // divisor, {atom: factor // divisor for atom, factor in exact.items()})
    span = rest.interval(box)
    if span is None:
        return node
    multiple = span[0] // divisor
    if multiple == span[1] // divisor:
        if node.fn == "mod":
            return rest.plus(-multiple * divisor).expr()
        return quotient.plus(multiple).expr()
    coarse = _coarser(rest, divisor, box)
    if coarse is not None:
        unit, large, small = coarse
        shorter = simplify(call(node.fn, large.expr(), integer(divisor // unit)), box)
        if node.fn == "mod":
            return _Sum(0, {shorter: unit}).plus(small).expr()
        return quotient.plus(_Sum(0, {shorter: 1})).expr()
    smaller = call(node.fn, rest.expr(), integer(divisor))
    return smaller if node.fn == "mod" else call("add", quotient.expr(), smaller)


@dataclass(frozen=True)
class _Sum:
    """``offset + sum(factor * atom)``: an affine form whose atoms may be quotients and remainders as well as coordinates."""

    offset: int
    factors: Mapping[Expr, int]

    def plus(self, other: "_Sum | int") -> "_Sum":
        if not isinstance(other, _Sum):
            return _Sum(self.offset + other, self.factors)
        total = dict(self.factors)
        for atom, factor in other.factors.items():
            total[atom] = total.get(atom, 0) + factor
        return _Sum(self.offset + other.offset, {atom: factor for atom, factor in total.items() if factor})

    def times(self, factor: int) -> "_Sum":
        return _Sum(self.offset * factor, {atom: f * factor for atom, f in self.factors.items()} if factor else {})

    def interval(self, box: Box) -> Interval | None:
        low = high = self.offset
        for atom, factor in self.factors.items():
            known = interval(atom, box)
            if known is None:
                return None
            ends = (known[0] * factor, known[1] * factor)
            low, high = low + min(ends), high + max(ends)
        return low, high

    def expr(self) -> Expr:
        """Coordinates first, in their order: the same sum is the same expression."""
        coordinates = sorted((a.axis, f) for a, f in self.factors.items() if isinstance(a, Index))
        total = Affine(self.offset, tuple(coordinates)).expr()
        for atom, factor in self.factors.items():
            if not isinstance(atom, Index):
                total = call("add", total, call("mul", atom, integer(factor)))
        return total


def _sum_of(expr: Expr) -> _Sum:
    """Any int64 expression as a sum: of itself, if it is nothing else."""
    form = affine(expr)
    if form is not None:
        return _Sum(form.offset, {Index(dtypes.int64, axis): factor for axis, factor in form.coefficients})
    if isinstance(expr, Call) and expr.fn in ("add", "sub", "neg"):
        first, last = _sum_of(expr.args[0]), _sum_of(expr.args[-1])
        return first.times(-1) if expr.fn == "neg" else first.plus(last if expr.fn == "add" else last.times(-1))
    if isinstance(expr, Call) and expr.fn == "mul":
        for one, other in (expr.args, expr.args[::-1]):
            if isinstance(one, Lit):
                return _sum_of(other).times(whole(one.value))
    return _Sum(0, {expr: 1})


def _coarser(form: _Sum, divisor: int, box: Box) -> tuple[int, _Sum, _Sum] | None:
    """(unit, large, small) such that ``form`` is unit * large + small with small below unit, which divides the divisor."""
    if is_open(divisor) or any(map(is_open, form.factors.values())):
        return None
    for unit in sorted({gcd(divisor, factor) for factor in form.factors.values()} - {1}, reverse=True):
        large = {atom: factor // unit for atom, factor in form.factors.items() if factor % unit == 0}
        small = _Sum(form.offset, {atom: factor for atom, factor in form.factors.items() if factor % unit})
        span = small.interval(box)
        if span is not None and span[0] >= 0 and span[1] < unit:
            return unit, _Sum(0, large), small
    return None


def _divides(divisor: int, factor: int) -> bool:
    try:
        return factor % divisor == 0
    except Undecided:
        return False


def substitute_axes(expr: Expr, axes: Mapping[int, Expr]) -> Expr:
    """``expr`` with Index(axis) replaced by ``axes[axis]``."""
    return transform(expr, lambda node: axes.get(node.axis) if isinstance(node, Index) else None)


def indices(expr: Expr) -> set[int]:
    """The axes whose coordinate ``expr`` reads."""
    found: set[int] = set()
    stack, seen = [expr], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Index):
            found.add(node.axis)
        stack.extend(children(node))
    return found
