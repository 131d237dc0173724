"""One program for all shapes of a profile, from the programs of a few shapes.

The model is lowered for several shapes whose open dimensions have different values. Where the programs agree, they agree for
every shape; where a number differs, it must be a polynomial in the dimensions (an extent, a stride, a literal of coordinate
arithmetic): it is fitted on some of the shapes and checked on the others. Anything else that differs (the order of steps, an
operator folded away, a number that no polynomial gives) is an error, so a model whose form depends on its shape is refused.

Constants that grow with the shape (position tables, masks of ones) are stored once, as they are at the largest shape; every
other shape must see the beginning of each axis of that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from itertools import combinations, product
from math import prod
from typing import Any

import numpy as np

from redline.base.errors import BuildError
from redline.base.extents import Extent
from redline.base.shapes import StaticShape, contiguous_strides
from redline.kernels.expr import Expr, Lit, call, cast, integer, lit
from redline.kernels.mapped import mapped
from redline.kernels.problem import Operand
from redline.lower.program import Program, Step, View

MAX_POWER = 2
Point = tuple[int, ...]


@dataclass(frozen=True)
class Opened:
    """``program``: with open extents; ``largest``: the same steps at the largest shape, whose memory suffices for all."""

    program: Program
    largest: Program


def opened(points: Sequence[Point], programs: Sequence[Program], dims: Sequence[Any]) -> Opened:
    """The program over ``dims`` of which ``programs`` are the cases at ``points``; no dimension of the last is below its most.

    Raises BuildError where no such program exists.
    """
    growing = _growing_constants(programs)
    cases = [_with_largest_strides(program, programs[-1], growing) for program in programs]
    fit = Fit(points, dims)
    merged = _Merge(fit)
    program = replace(
        cases[-1],
        buffers=merged([case.buffers for case in cases], "buffers"),
        steps=merged([case.steps for case in cases], "steps"),
        inputs=merged([case.inputs for case in cases], "inputs"),
        outputs=merged([case.outputs for case in cases], "outputs"),
    )
    return Opened(program, _at_largest(program))


def _at_largest(program: Program) -> Program:
    """``program`` with every dimension at the end of its range."""
    parts = tuple(getattr(program, name) for name in ("buffers", "steps", "inputs", "outputs"))
    buffers, steps, inputs, outputs = mapped(parts, _largest)
    return replace(program, buffers=buffers, steps=steps, inputs=inputs, outputs=outputs)


def _largest(extent: Extent) -> int:
    return sum(c * prod(atom.high for atom in m) for m, c in extent.terms)


class Fit:
    """Numbers at the points as polynomials in the dimensions, with as few terms as there need to be.

    Tried in order: one term; the terms in which no dimension is squared; those and one more. At least one point is always
    left over, to check the others.
    """

    def __init__(self, points: Sequence[Point], dims: Sequence[Any]) -> None:
        self.points, self.dims = points, dims
        powers = list(product(range(MAX_POWER + 1), repeat=len(dims)))
        plain = [p for p in powers if max(p, default=0) <= 1]
        rest = [p for p in powers if p not in plain]
        self._bases = [[p] for p in powers] + [plain] + [[*plain, p] for p in rest]
        self._solvers: dict[int, tuple[list[list[Fraction]], list[int]] | None] = {}
        self._known: dict[tuple[int, ...], Any] = {}
        if len(points) <= len(plain):
            raise BuildError("--shapes", f"{len(points)} shapes do not tell {len(dims)} dimensions apart")

    def __call__(self, values: tuple[int, ...], where: str) -> Any:
        if values not in self._known:
            self._known[values] = self._fitted(values, where)
        return self._known[values]

    def _fitted(self, values: tuple[int, ...], where: str) -> Any:
        for number, basis in enumerate(self._bases):
            factors = self._factors(number, basis, values)
            if factors is not None:
                return sum(f * _monomial(self.dims, p) for f, p in zip(factors, basis, strict=True))
        listed = ", ".join(f"{value} at {point}" for point, value in zip(self.points, values, strict=True))
        raise BuildError("--shapes", f"{where} is {listed}: no polynomial of the open dimensions", "", "fix a dimension")

    def _factors(self, number: int, basis: Sequence[Point], values: tuple[int, ...]) -> list[int] | None:
        """The integers with which the basis gives the values; None where there are none."""
        if number not in self._solvers:
            self._solvers[number] = self._solver(basis)
        solver = self._solvers[number]
        if solver is None:
            return None
        inverse, rows = solver
        factors = [sum(f * values[row] for f, row in zip(line, rows, strict=True)) for line in inverse]
        if any(factor.denominator != 1 for factor in factors):
            return None
        for point, value in zip(self.points, values, strict=True):
            if sum(f * _monomial(point, p) for f, p in zip(factors, basis, strict=True)) != value:
                return None
        return [int(factor) for factor in factors]

    def _solver(self, basis: Sequence[Point]) -> tuple[list[list[Fraction]], list[int]] | None:
        """The inverse of the basis at independent points, and which points these are; None without a point to spare."""
        if len(self.points) <= len(basis):
            return None
        for rows in combinations(range(len(self.points)), len(basis)):
            inverse = _inverse([[Fraction(_monomial(self.points[r], p)) for p in basis] for r in rows])
            if inverse is not None:
                return inverse, list(rows)
        return None


def _monomial(values: Sequence[Any], powers: Point) -> Any:
    return prod(value for value, power in zip(values, powers, strict=True) for _ in range(power))


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]] | None:
    """By Gauss and Jordan, exactly; None for a singular matrix."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next((r for r in range(column, size) if rows[r][column]), None)
        if pivot is None:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for r in range(size):
            if r != column and rows[r][column]:
                rows[r] = [a - rows[r][column] * b for a, b in zip(rows[r], rows[column], strict=True)]
    return [row[size:] for row in rows]


class _Merge:
    """Merges the same place of several programs: what is equal stays, numbers that differ become extents."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self._expressions: dict[tuple[bytes, ...], Any] = {}

    def __call__(self, cases: Sequence[Any], where: str) -> Any:
        first = cases[0]
        if isinstance(first, Expr):
            return self._expression(cases, where)
        if all(type(case) is type(first) for case in cases):
            if isinstance(first, int) and not isinstance(first, bool):
                return first if all(case == first for case in cases) else self.fit(tuple(cases), where)
            if isinstance(first, tuple) and all(len(case) == len(first) for case in cases):
                return tuple(self(items, f"{where}[{i}]") for i, items in enumerate(zip(*cases, strict=True)))
            if is_dataclass(first):
                return self._dataclass(cases, where)
        if all(case == first for case in cases):
            return first
        raise BuildError("--shapes", f"the model has another form at other shapes: {where}", "", "fix a dimension")

    def _dataclass(self, cases: Sequence[Any], where: str) -> Any:
        names = [f.name for f in fields(cases[0]) if f.init]
        values = {name: self([getattr(case, name) for case in cases], f"{where}.{name}") for name in names}
        return type(cases[0])(**values)

    def _expression(self, cases: Sequence[Any], where: str) -> Any:
        if any(type(case) is not type(cases[0]) for case in cases):
            raise BuildError("--shapes", f"the model has another form at other shapes: {where}", "", "fix a dimension")
        key = tuple(case.digest for case in cases)
        if key not in self._expressions:
            same = all(case.digest == cases[0].digest for case in cases)
            varies = not same and isinstance(cases[0], Lit) and cases[0].dtype.is_float
            self._expressions[key] = (
                cases[0] if same else self._count(cases, where) if varies else self._dataclass(cases, where)
            )
        return self._expressions[key]

    def _count(self, cases: Sequence[Any], where: str) -> Expr:
        """A literal of floating type that is a number of elements, or one over it: of a mean."""
        dtype, values = cases[0].dtype, [float(case.value) for case in cases]
        if all(value.is_integer() for value in values):
            return cast(integer(self.fit(tuple(map(int, values)), where)), dtype)
        counts = tuple(round(1 / value) if value else 0 for value in values)
        if all(count and dtype.numpy.type(1 / count) == dtype.numpy.type(v) for count, v in zip(counts, values, strict=True)):
            return call("div", lit(1.0, dtype), cast(integer(self.fit(counts, where)), dtype))
        raise BuildError("--shapes", f"a number depends on the shape: {where} is {values}", "", "fix a dimension")


# --- constants that grow with the shape -------------------------------------------------------------------------------


def _growing_constants(programs: Sequence[Program]) -> Mapping[int, StaticShape]:
    """The constants that are not the same in all programs, with their largest shape."""
    keys = {tuple(program.constants) for program in programs}
    if len(keys) > 1:
        raise BuildError("--shapes", "the model has other constants at other shapes", "", "fix a dimension")
    growing = {}
    for index, largest in programs[-1].constants.items():
        arrays = [program.constants[index] for program in programs]
        if all(array.shape == largest.shape and _same(array, largest) for array in arrays):
            continue
        for array in arrays:
            begin = tuple(slice(extent) for extent in array.shape)
            if array.ndim != largest.ndim or largest[begin].shape != array.shape or not _same(largest[begin], array):
                seen = f"a constant of shape {list(largest.shape)} is no beginning of itself at smaller shapes"
                raise BuildError("--shapes", seen, "", "fix a dimension")
        growing[index] = largest.shape
    return growing


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one shape have the same bits."""
    if a is b or a.dtype != b.dtype:
        return a is b
    bits = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b)]
    return np.array_equal(bits[0], bits[1])


def _with_largest_strides(program: Program, largest: Program, growing: Mapping[int, StaticShape]) -> Program:
    """``program`` reading the growing constants as they lie at the largest shape."""
    steps = tuple(_moved(step, growing) for step in program.steps)
    shared = {index: largest.constants[index] for index in program.constants}
    sizes = {b.index: b for b in largest.buffers}
    buffers = tuple(sizes[b.index] if b.index in growing else b for b in program.buffers)
    return replace(program, steps=steps, buffers=buffers, constants=shared)


def _moved(step: Step, growing: Mapping[int, StaticShape]) -> Step:
    reads, problem = list(step.reads), step.problem
    for position, view in enumerate(step.reads):
        if view.buffer.index in growing:
            largest = growing[view.buffer.index]
            if view.offset or len(view.shape) != len(largest) or view.strides != contiguous_strides(view.shape):
                raise BuildError("--shapes", f"{step.nodes[:1]} reads a constant that grows with the shape in parts")
            buffer = replace(view.buffer, num_elements=prod(largest))
            reads[position] = View(buffer, view.shape, contiguous_strides(largest), 0)
            problem = _with_operand(problem, position, reads[position].operand)
    return replace(step, reads=tuple(reads), problem=problem)


def _with_operand(problem: Any, position: int, operand: Operand) -> Any:
    names = {f.name for f in fields(problem)}
    if "reads" in names:
        return replace(problem, reads=(*problem.reads[:position], operand, *problem.reads[position + 1 :]))
    for place, name in enumerate(("a", "b")):
        if position == place and name in names:
            return replace(problem, **{name: operand})
    if "extra" not in names:
        raise BuildError("--shapes", "a constant that grows with the shape is read by a kernel of closed extents")
    extra = list(problem.extra)
    extra[position - 2] = operand
    return replace(problem, extra=tuple(extra))
