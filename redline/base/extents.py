"""Open extents: sizes that a call decides, as exact arithmetic over the dimensions of a profile.

An ``Extent`` stands where an int would: it adds, multiplies and divides, and its text is the C expression of its value, over
``dims[0]``, ``dims[1]``, ...; or that in Triton, where the dimensions are ``dims0``, ``dims1``, ... A question about it
(``extent < 64``) has an answer only where that is the same for every shape of the profile; else it raises ``Undecided``. So
code that was written for constants is either right for all shapes or fails when the engine is built, and code that knows
open extents asks for ``low``, ``high`` or ``nominal`` where it needs a number.

``==`` means "the same for all shapes", as keys of dictionaries need it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

MAX_DIMS = 8  # RL_MAX_DIMS of executor.h
FIRST_FOUND = 4  # dims[4] and on are filled in by kernels while a call runs: extents that depend on data


class Undecided(Exception):
    """The answer differs between shapes of the profile."""


@dataclass(frozen=True, order=True)
class Atom:
    """A non-negative quantity that is known when a call begins: ``text`` in C, its range, its value at the tuned shape.

    ``quotient``: the two extents whose floored quotient it is, of an atom that is one.
    """

    text: str
    low: int
    high: int
    nominal: int
    quotient: tuple[Any, Any] | None = field(default=None, compare=False, repr=False)


Monomial = tuple[Atom, ...]


class Extent:
    """A polynomial in atoms with integer coefficients that is not constant; see the module's text."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Iterable[tuple[Monomial, int]]) -> None:
        self.terms = tuple(sorted(terms))
        self._hash = hash(self.terms)

    # -- values

    @property
    def low(self) -> int:
        return sum(c * prod((a.low if c > 0 else a.high) for a in m) for m, c in self.terms)

    @property
    def high(self) -> int:
        return sum(c * prod((a.high if c > 0 else a.low) for a in m) for m, c in self.terms)

    @property
    def nominal(self) -> int:
        return sum(c * prod(a.nominal for a in m) for m, c in self.terms)

    def __str__(self) -> str:
        return f"({' + '.join(map(_term_text, self.terms))})"

    def __repr__(self) -> str:
        return f"<{self} {self.low}..{self.high} ~{self.nominal}>"

    # -- arithmetic

    def __add__(self, other: Any) -> Any:
        return _sum(self, other)

    __radd__ = __add__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return _sum(self, other * -1)

    def __rsub__(self, other: Any) -> Any:
        return _sum(other, self * -1)

    def __mul__(self, other: Any) -> Any:
        total: dict[Monomial, int] = {}
        for m, c in self.terms:
            for n, d in _terms(other):
                key = tuple(sorted(m + n))
                total[key] = total.get(key, 0) + c * d
        return _made(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return _divided(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _divided(other, self)

    def __mod__(self, other: Any) -> Any:
        return self - (self // other) * other

    def __rmod__(self, other: Any) -> Any:
        return other - (other // self) * self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    # -- questions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extent) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __bool__(self) -> bool:
        if self.low > 0 or self.high < 0:
            return True
        raise Undecided(f"whether {self!r} is 0")

    def __lt__(self, other: Any) -> bool:
        gap = self - other
        if high(gap) < 0:
            return True
        if low(gap) >= 0:
            return False
        raise Undecided(f"whether {self!r} < {other!r}")

    def __ge__(self, other: Any) -> bool:
        return not self < other

    def __gt__(self, other: Any) -> bool:
        return not self <= other

    def __le__(self, other: Any) -> bool:
        return self < other + 1


def dimension(index: int, low: int, high: int, nominal: int) -> Extent:
    """Number ``index`` of the profile's dimensions."""
    return Extent([((Atom(f"dims[{index}]", low, high, nominal),), 1)])


def triton_dimension(index: int, low: int, high: int, nominal: int) -> Extent:
    """Number ``index`` of the profile's dimensions, of a kernel in Triton."""
    return Extent([((Atom(f"dims{index}", low, high, nominal),), 1)])


def found_dimension(slot: int, most: int, nominal: int) -> Extent:
    """Extent number ``slot`` that depends on data: known once the step that finds it has run.

    It may be 0, but questions are answered for 1 and more: loops along an empty axis do not run, so what is decided for
    them does not matter. What is done outside of such loops (a clamp to the axis) must be right for 0 as well.
    """
    return Extent([((Atom(f"dims[{FIRST_FOUND + slot}]", 1, max(1, most), nominal),), 1)])


def depends_on_data(value: Any) -> bool:
    """Whether ``value`` is only known while the call runs."""
    return isinstance(value, Extent) and any(f"dims[{i}]" in str(value) for i in range(FIRST_FOUND, MAX_DIMS))


def at_nominal(value: Any) -> Any:
    """``value``, a tree of tuples and dataclasses, with the tuned number in place of every open extent."""
    if isinstance(value, Extent):
        return value.nominal
    if isinstance(value, tuple):
        return tuple(map(at_nominal, value))
    return value


def value_at(value: Any, dims: Sequence[int]) -> int:
    """``value`` where the dimensions are ``dims``; only polynomials of dimensions can be asked."""
    if not isinstance(value, Extent):
        return int(value)
    return sum(factor * prod(dims[_number(atom)] for atom in monomial) for monomial, factor in value.terms)


def _number(atom: Atom) -> int:
    """Which dimension an atom is."""
    return int(atom.text.removeprefix("dims").strip("[]"))


def formula(value: Any) -> Any:
    """``value`` as engine files write it (engine/formula.py); raises Undecided for what is no quotient of polynomials."""
    if not isinstance(value, Extent):
        return int(value)
    return [[factor, *map(_atom_formula, monomial)] for monomial, factor in value.terms]


def _atom_formula(atom: Atom) -> Any:
    if atom.quotient is not None:
        return [formula(atom.quotient[0]), formula(atom.quotient[1])]
    if not _is_dimension(atom):
        raise Undecided(f"{atom.text} when a kernel is launched")
    return _number(atom)


def dims_in(text: str) -> tuple[int, ...]:
    """The numbers of the dimensions that a text in Triton names."""
    return tuple(sorted({int(number) for number in re.findall(r"\bdims(\d+)\b", text)}))


def retuned(value: Any, share: float) -> Any:
    """``value``, a tree of tuples, tuned for a smaller shape: every dimension at ``share`` of the way from its smallest to its
    tuned value, on a logarithmic scale. What is computed from dimensions in other ways than by polynomials stays as it is.
    """
    if isinstance(value, Extent):
        return Extent((tuple(_retuned_atom(atom, share) for atom in m), c) for m, c in value.terms)
    if isinstance(value, tuple):
        return tuple(retuned(item, share) for item in value)
    return value


def _retuned_atom(atom: Atom, share: float) -> Atom:
    if not atom.text.startswith("dims["):
        return atom
    return replace(atom, nominal=round(atom.low * (atom.nominal / atom.low) ** share))


def most_where(extent: Any, product: int) -> int:
    """No less than ``extent`` ever is where the product of all dimensions is at most ``product``."""
    if not isinstance(extent, Extent):
        return int(extent)
    return sum(c * (_most_of(m, product) if c > 0 else prod(a.low for a in m)) for m, c in extent.terms)


def _most_of(monomial: Monomial, product: int) -> int:
    dims = [atom for atom in monomial if _is_dimension(atom)]
    most = prod(atom.high for atom in dims)
    most = min(most, product) if len(set(dims)) == len(dims) else most
    for atom in monomial:
        if atom.quotient is not None:
            most *= min(atom.high, most_where(atom.quotient[0], product) // low(atom.quotient[1]))
        elif atom not in dims:
            most *= atom.high
    return most


def tuned_at(extent: Any, dims: Sequence[int]) -> Any:
    """``extent`` tuned for dimensions of these values."""
    if not isinstance(extent, Extent):
        return extent
    return Extent((tuple(_tuned_atom(atom, dims) for atom in m), c) for m, c in extent.terms)


def _tuned_atom(atom: Atom, dims: Sequence[int]) -> Atom:
    if atom.quotient is not None:
        a, b = (tuned_at(part, dims) for part in atom.quotient)
        return replace(atom, nominal=nominal(a) // nominal(b), quotient=(a, b))
    return replace(atom, nominal=dims[_number(atom)]) if _is_dimension(atom) else atom


def nominal_dims(value: Any) -> list[int]:
    """The tuned values of the dimensions, as far as the open extents within ``value`` name them; else 1."""
    found = [1] * MAX_DIMS
    for atom in _atoms_in(value):
        if _is_dimension(atom):
            found[_number(atom)] = atom.nominal
    return found


def _atoms_in(value: Any) -> Iterator[Atom]:
    for extent in extents_in(value):
        for monomial, _ in extent.terms:
            for atom in monomial:
                yield atom
                yield from _atoms_in(atom.quotient)


def _is_dimension(atom: Atom) -> bool:
    return re.fullmatch(r"dims\[?\d+\]?", atom.text) is not None


def is_open(value: Any) -> bool:
    return isinstance(value, Extent)


def low(value: Any) -> int:
    """The least that ``value`` can be."""
    return value.low if isinstance(value, Extent) else value


def high(value: Any) -> int:
    """The most that ``value`` can be."""
    return value.high if isinstance(value, Extent) else value


def nominal(value: Any) -> int:
    """``value`` at the tuned shape: for choices that any shape may live with."""
    return value.nominal if isinstance(value, Extent) else value


def may_be(question: Callable[[], bool]) -> bool:
    """The answer to a question about extents, or True where it is open."""
    try:
        return question()
    except Undecided:
        return True


def minimum(a: Any, b: Any) -> Any:
    """The smaller one, decided when a call begins if need be."""
    try:
        return min(a, b)
    except Undecided:
        text = f"({a} < {b} ? {a} : {b})" if _is_c(a, b) else f"tl.minimum({a}, {b})"
        return _atom(text, min(low(a), low(b)), min(high(a), high(b)), min(nominal(a), nominal(b)))


def maximum(a: Any, b: Any) -> Any:
    """The larger one, decided when a call begins if need be, or when an extent is found, which may be 0."""
    try:
        return max(a, b) if not depends_on_data(a) and not depends_on_data(b) else _decided_later()
    except Undecided:
        text = f"({a} > {b} ? {a} : {b})" if _is_c(a, b) else f"tl.maximum({a}, {b})"
        return _atom(text, max(low(a), low(b)), max(high(a), high(b)), max(nominal(a), nominal(b)))


def _decided_later() -> Any:
    raise Undecided("what depends on data")


def ceil_div(a: Any, b: Any) -> Any:
    return -(-a // b)


def extents_in(value: Any) -> Iterator[Extent]:
    """Every open extent among nested tuples and operands."""
    if isinstance(value, Extent):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from extents_in(item)


def _terms(value: Any) -> Iterable[tuple[Monomial, int]]:
    return value.terms if isinstance(value, Extent) else ((((), value),) if value else ())


def _made(total: Mapping[Monomial, int]) -> Any:
    terms = [(m, c) for m, c in total.items() if c]
    if not terms:
        return 0
    return terms[0][1] if len(terms) == 1 and not terms[0][0] else Extent(terms)


def _sum(a: Any, b: Any) -> Any:
    total: dict[Monomial, int] = {}
    for m, c in (*_terms(a), *_terms(b)):
        total[m] = total.get(m, 0) + c
    return _made(total)


def _divided(a: Any, b: Any) -> Any:
    """The floor of a / b: exact where b divides every term, a new atom where it must be computed."""
    if low(b) <= 0:
        raise Undecided(f"{a!r} // {b!r}")
    exact = _quotient(a, b)
    if exact is not None:
        return exact
    if not is_open(b):
        whole = _made({m: c // b for m, c in _terms(a) if m and c % b == 0})
        if is_open(whole):  # floor((b q + r) / b) = q + floor(r / b)
            return whole + (a - whole * b) // b
    if high(a) <= 0 and (low(a) < 0 or is_open(a)):
        return -_atom_quotient(-a + b - 1, b)
    if low(a) < 0:
        raise Undecided(f"{a!r} // {b!r}")
    return _atom_quotient(a, b)


def _atom_quotient(a: Any, b: Any) -> Any:
    """The floor of a / b for a >= 0; 0 where a < b for all shapes."""
    try:
        if a < b:
            return 0
    except Undecided:
        pass
    text = f"({a} / {b})" if _is_c(a, b) else f"({a} // {b})"
    return _atom(text, low(a) // high(b), high(a) // low(b), nominal(a) // nominal(b), (a, b))


def _atom(text: str, least: int, most: int, usual: int, quotient: tuple[Any, Any] | None = None) -> Any:
    return least if least == most else Extent([((Atom(text, least, most, usual, quotient),), 1)])


def _is_c(a: Any, b: Any) -> bool:
    """Whether the extents are those of a program in C."""
    return "dims[" in f"{a}{b}"


def _quotient(a: Any, b: Any) -> Any:
    """a / b where b is one term that divides every term of a; else None."""
    divisor = list(_terms(b))
    if len(divisor) != 1:
        return 1 if a == b else None
    (by, factor), total = divisor[0], {}
    for m, c in _terms(a):
        rest = list(m)
        for atom in by:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % factor:
            return None
        total[tuple(rest)] = c // factor
    return _made(total)


def _term_text(term: tuple[Monomial, int]) -> str:
    monomial, factor = term
    return " * ".join([*(atom.text for atom in monomial), *([str(factor)] if factor != 1 or not monomial else [])])
