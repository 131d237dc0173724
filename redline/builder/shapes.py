"""The shapes of a build: fixed ones, or ranges, whose program is made from the programs of a few shapes in the range."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from redline.base.errors import BuildError
from redline.base.extents import Extent, dimension
from redline.base.shapes import Dim, Shape, ShapeRange, StaticShape, Sym
from redline.engine import OpenDim
from redline.lower import Program
from redline.lower.opening import Opened, Point, opened

Given = Mapping[str, StaticShape | ShapeRange]
MAX_OPEN = 3


@dataclass(frozen=True)
class Shapes:
    """The open dimensions of a build, and the axes of its inputs and outputs in terms of them (see engine.IO)."""

    dims: tuple[OpenDim, ...] = ()
    terms: Mapping[str, tuple[tuple[tuple[int, ...], ...], ...]] = field(default_factory=dict)

    @staticmethod
    def of(program: Program, dims: tuple[OpenDim, ...]) -> "Shapes":
        """Those of a program over ``dims``."""
        ports = [*program.inputs, *program.outputs]
        axis = lambda extent: tuple(_term(t, len(dims)) for t in _terms_of(extent))  # noqa: E731
        return Shapes(dims, {name: tuple(map(axis, shape)) for name, _, shape in ports if _any_open(shape)})


@dataclass(frozen=True)
class Profile:
    """The ranges of a build. ``places``: for each dimension the axes (input, axis) that it is the extent of."""

    given: Given
    dims: tuple[OpenDim, ...]
    places: tuple[tuple[tuple[str, int], ...], ...]

    def at(self, point: Point) -> dict[str, StaticShape]:
        """The shapes of the given inputs where the dimensions have these values."""
        shapes = {n: list(s.max if isinstance(s, ShapeRange) else s) for n, s in self.given.items()}
        for value, places in zip(point, self.places, strict=True):
            for name, axis in places:
                shapes[name][axis] = value
        return {name: tuple(shape) for name, shape in shapes.items()}

    def points(self) -> list[Point]:
        """Shapes that tell the dimensions apart, and the largest one at the end. No value appears twice in a shape."""
        values = [list(_distinct(dim, position)) for position, dim in enumerate(self.dims)]
        grid = list(product(*(v[:2] for v in values)))
        spare = [tuple(v[2] for v in values), tuple(v[i % 2 + 1] for i, v in enumerate(values))]
        largest = tuple(dim.max for dim in self.dims)
        return [*dict.fromkeys(p for p in [*grid, *spare] if p != largest), largest]

    def open(self, lowered: Callable[[Mapping[str, StaticShape]], Program]) -> tuple[Opened, Shapes]:
        """The program for all shapes; ``lowered`` gives that of one."""
        points = self.points()
        extents = [dimension(i, d.min, d.max, d.opt) for i, d in enumerate(self.dims)]
        found = opened(points, [lowered(self.at(point)) for point in points], extents)
        return found, Shapes.of(found.program, self.dims)


def profile(given: Given, declared: Mapping[str, Shape | None]) -> Profile | None:
    """The profile that ``given`` asks for; None where every shape is fixed.

    ``declared`` are the inputs' shapes in the model: axes of one symbol there are one dimension. Raises BuildError where
    the ranges of a dimension disagree, or an axis is open that the model fixes.
    """
    dims: dict[Dim, OpenDim] = {}
    places: dict[Dim, list[tuple[str, int]]] = {}
    for name, shape in given.items():
        if not isinstance(shape, ShapeRange):
            continue
        model = declared.get(name)
        for axis, (low, opt, high) in enumerate(zip(shape.min, shape.opt, shape.max, strict=True)):
            symbol = model[axis] if model is not None and axis < len(model) else Sym(f"{name}.{axis}")
            if low == high:
                continue
            if isinstance(symbol, int):
                raise BuildError("--shapes", f"axis {axis} of {name!r} is {symbol} in the model", "", "give it that extent")
            found = OpenDim(symbol.name, low, opt, high)
            if dims.setdefault(symbol, found) != found:
                raise BuildError(
                    "--shapes", f"two inputs give dimension {symbol.name!r} different ranges", "", "give one range"
                )
            places.setdefault(symbol, []).append((name, axis))
    if len(dims) > MAX_OPEN:
        raise BuildError("--shapes", f"{len(dims)} dimensions are open", f"allowed: {MAX_OPEN}", "fix some of them")
    return Profile(given, tuple(dims.values()), tuple(map(tuple, places.values()))) if dims else None


def _distinct(dim: OpenDim, position: int) -> Iterator[int]:
    """Three different values of the range: primes that no other dimension uses, as long as the range has them."""
    primes = [p for i, p in enumerate(_primes()) if i % MAX_OPEN == position and dim.min <= p < dim.max]
    others = [v for v in range(dim.min, min(dim.max, dim.min + 64) + 1) if v not in primes]
    found = [*primes[:3], *sorted(others, key=lambda v: (v < 2, v))][:3]
    if len(found) < 3:
        raise BuildError("--shapes", f"dimension {dim.name!r} goes from {dim.min} to {dim.max}", "", "fix it, or open it wider")
    yield from found


def _primes() -> list[int]:
    return [n for n in range(3, 128) if all(n % d for d in range(2, n))]


def _any_open(shape: Sequence[Any]) -> bool:
    return any(isinstance(extent, Extent) for extent in shape)


def _terms_of(extent: Any) -> Sequence[Any]:
    return extent.terms if isinstance(extent, Extent) else [((), extent)]


def _term(term: tuple[Sequence[Any], int], num_dims: int) -> tuple[int, ...]:
    monomial, factor = term
    names = [atom.text for atom in monomial]
    return (factor, *(names.count(f"dims[{i}]") for i in range(num_dims)))
