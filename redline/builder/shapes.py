"""The shapes of a build: fixed ones, or ranges, whose program is made from the programs of a few shapes in the range."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import gcd
from typing import Any

from redline.base import log
from redline.base.errors import BuildError, RedlineError
from redline.base.extents import Extent, dimension, found_dimension
from redline.base.shapes import Dim, Shape, ShapeRange, StaticShape, Sym
from redline.engine import OpenDim
from redline.lower import Program
from redline.lower.opening import Opened, Point, opened

Given = Mapping[str, StaticShape | ShapeRange]
MAX_OPEN = 3
MAX_FOUND = 4
FOUND_VALUES = (131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191)  # primes beyond those of dimensions
USUAL_SHARE = 16  # of the most that a found extent may be, kernels are chosen for
DERIVED_STEPS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Shapes:
    """The open dimensions of a build, and the axes of its inputs and outputs in terms of them (see engine.IO)."""

    dims: tuple[OpenDim, ...] = ()  # what the inputs' shapes say, then what steps find
    terms: Mapping[str, tuple[tuple[tuple[int, ...], ...], ...]] = field(default_factory=dict)

    @staticmethod
    def of(program: Program, dims: tuple[OpenDim, ...], extents: Sequence[Extent]) -> "Shapes":
        """Those of a program over ``dims``, which stand in it as ``extents``."""
        ports, names = [*program.inputs, *program.outputs], [str(extent).strip("()") for extent in extents]
        return Shapes(dims, {name: _axes(shape, names) for name, _, shape in ports if _any_open(shape)})


@dataclass(frozen=True)
class Profile:
    """The ranges of a build. ``places``: for each dimension the axes (input, axis) whose extent is ``steps`` times it."""

    given: Given
    dims: tuple[OpenDim, ...]
    places: tuple[tuple[tuple[str, int], ...], ...]
    steps: tuple[int, ...]

    def at(self, point: Point) -> dict[str, StaticShape]:
        """The shapes of the given inputs where the dimensions have these values."""
        shapes = {n: list(s.max if isinstance(s, ShapeRange) else s) for n, s in self.given.items()}
        for value, step, places in zip(point, self.steps, self.places, strict=True):
            for name, axis in places:
                shapes[name][axis] = value * step
        return {name: tuple(shape) for name, shape in shapes.items()}

    def points(self, mosts: Sequence[int] = ()) -> list[Point]:
        """Shapes that tell the dimensions apart, and the largest one at the end. No value appears twice in a shape.

        Where two dimensions end at the same value, the last shape is a little larger than the largest. ``mosts``: of the
        extents that a run finds, which stand behind the dimensions; there they are a little larger too.
        """
        values = [list(_distinct(dim, position)) for position, dim in enumerate(self.dims)]
        values += [[p for i, p in enumerate(FOUND_VALUES) if i % MAX_FOUND == slot] for slot in range(len(mosts))]
        grid = list(product(*(v[:2] for v in values)))
        spare = [tuple(v[2] for v in values), tuple(v[i % 2 + 1] for i, v in enumerate(values))]
        largest = _apart([*(dim.max for dim in self.dims), *(most + 1 for most in mosts)])
        return [*dict.fromkeys(p for p in [*grid, *spare] if p != largest), largest]

    def open(self, source: "Source") -> tuple[Opened, Shapes]:
        """The program for all shapes of ``source``."""
        num_given = len(self.dims)
        mosts = source.found(self.at(self.points()[-1][:num_given]))
        if len(mosts) > MAX_FOUND:
            seen = f"the shapes of {len(mosts)} operators' results depend on data"
            raise BuildError("model", seen, f"allowed: {MAX_FOUND}", "split the model")
        points = self.points(mosts)
        largest = points[-1][num_given:]
        extents = [source.dimension(i, d.min, d.max, d.opt) for i, d in enumerate(self.dims)]
        extents += [found_dimension(slot, most, _usual(most)) for slot, most in enumerate(largest)]
        programs = [source.lowered(self.at(point[:num_given]), point[num_given:]) for point in points]
        found = opened(points, programs, extents)
        dims = (*self.dims, *_found_dims(found.program, largest))
        return found, Shapes.of(found.program, dims, extents)


@dataclass(frozen=True)
class Source:
    """A model. ``lowered(shapes, counts)``: its program where the extents that a run finds are ``counts``; ``found(shapes)``:
    the most that each of these may be; ``dimension``: makes the extents of the dimensions."""

    lowered: Callable[[Mapping[str, StaticShape], Sequence[int]], Program]
    found: Callable[[Mapping[str, StaticShape]], Sequence[int]] = lambda shapes: ()
    dimension: Callable[[int, int, int, int], Extent] = dimension


def _found_dims(program: Program, mosts: Sequence[int]) -> Iterator[OpenDim]:
    """What the steps of ``program`` find."""
    steps = {step.problem.slot: i for i, step in enumerate(program.steps) if hasattr(step.problem, "slot")}
    for slot, most in enumerate(mosts):
        step = steps.get(slot, max(0, len(program.steps) - 1))  # no step: its operator is not needed for the outputs
        yield OpenDim(f"found{slot}", 0, _usual(most), most, step)


def _usual(most: int) -> int:
    """What kernels are chosen for."""
    return max(1, most // USUAL_SHARE)


def _axes(shape: Sequence[Any], names: Sequence[str]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    return tuple(tuple(_term(t, names) for t in _terms_of(extent)) for extent in shape)


def profile(given: Given, declared: Mapping[str, Shape | None], step: int = 1) -> Profile | None:
    """The profile that ``given`` asks for; None where every shape is fixed.

    Dimensions count steps: those that ``given`` says, else ``step`` where the ends of the range are multiples of it.

    ``declared`` are the inputs' shapes in the model: axes of one symbol there are one dimension. Raises BuildError where
    the ranges of a dimension disagree, or an axis is open that the model fixes.
    """
    dims: dict[Dim, OpenDim] = {}
    steps: dict[Dim, int] = {}
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
            unit = shape.step[axis] if shape.step else step if gcd(low, opt, high) % step == 0 else 1
            found = OpenDim(symbol.name, low // unit, opt // unit, high // unit)
            if dims.setdefault(symbol, found) != found or steps.setdefault(symbol, unit) != unit:
                raise BuildError(
                    "--shapes", f"two inputs give dimension {symbol.name!r} different ranges", "", "give one range"
                )
            places.setdefault(symbol, []).append((name, axis))
    if len(dims) > MAX_OPEN:
        raise BuildError("--shapes", f"{len(dims)} dimensions are open", f"allowed: {MAX_OPEN}", "fix some of them")
    if not dims:
        return None
    return Profile(given, tuple(dims.values()), tuple(map(tuple, places.values())), tuple(steps.values()))


def fixed_profile(given: Given) -> Profile:
    """The profile of one shape, for a model in which only a run finds some extents."""
    return Profile(given, (), (), ())


def profiles(given: Given, declared: Mapping[str, Shape | None]) -> Iterator[Profile]:
    """The profiles to try in turn: every extent of the ranges, then multiples of 2, 4, ... as the ranges' ends have them.

    A model that halves its images takes only such; one that takes all is built for all.
    """
    seen = set()
    for step in (1, *DERIVED_STEPS):
        found = profile(given, declared, step)
        if found is not None and found.steps not in seen:
            seen.add(found.steps)
            yield found


def open_first(tries: Sequence[Profile], source: Source) -> tuple[Opened, Shapes]:
    """The program for the first profile that the model takes; raises the first one's error where it takes none."""
    first: RedlineError | None = None
    for ranges in tries:
        try:
            return ranges.open(source)
        except RedlineError as error:
            log.debug(1, f"steps of {ranges.steps}: {error}")
            first = first or error
    assert first is not None, "there is a profile to try"
    raise first


def _apart(values: Sequence[int]) -> Point:
    """``values``, each raised as far as it takes to differ from those before it."""
    found: list[int] = []
    for value in values:
        while value in found:
            value += 1
        found.append(value)
    return tuple(found)


def _distinct(dim: OpenDim, position: int) -> Iterator[int]:
    """Three different values: primes of the range that no other dimension uses, as long as it has them, others, or larger ones.

    1 comes last: what has an axis of 1 may be another program. The program is right for the range whatever it was made from.
    """
    primes = [p for i, p in enumerate(_primes()) if i % MAX_OPEN == position and dim.min <= p < dim.max]
    others = [v for v in range(dim.min, min(dim.max, dim.min + 64) + 1) if v not in primes]
    larger = range(dim.max + 1, dim.max + 4)
    yield from [*primes[:3], *(v for v in others if v > 1), *larger][:3]


def _primes() -> list[int]:
    return [n for n in range(3, 128) if all(n % d for d in range(2, n))]


def _any_open(shape: Sequence[Any]) -> bool:
    return any(isinstance(extent, Extent) for extent in shape)


def _terms_of(extent: Any) -> Sequence[Any]:
    return extent.terms if isinstance(extent, Extent) else [((), extent)]


def _term(term: tuple[Sequence[Any], int], names: Sequence[str]) -> tuple[int, ...]:
    """The factor, and how often each dimension, by its name in C, stands in the term."""
    monomial, factor = term
    texts = [atom.text for atom in monomial]
    return (factor, *(texts.count(name) for name in names))
