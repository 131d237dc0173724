"""The running state of a reduction as C: one variable or a row of lanes, with how to begin, add a value and merge two.

Sums of floats run in the type of the body over short stretches, and the stretches are summed in double: the error does not
grow with the length of the reduction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.kernels import functions
from redline.kernels.cexpr import c_type, literal
from redline.kernels.expr import Acc
from redline.kernels.functions import extreme
from redline.kernels.nest.problem import ARG_KINDS, Problem, Reduction

_FOLD = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}


@dataclass(frozen=True)
class Accumulator:
    """State number ``slot`` of a problem's reduction over values of ``dtype``."""

    slot: int
    reduction: Reduction
    dtype: DType  # of the value, not held in fewer than 32 bits if a float

    @property
    def is_position(self) -> bool:
        return self.reduction.kind in ARG_KINDS

    @property
    def needs_double(self) -> bool:
        return self.reduction.kind in ("sum", "prod") and self.dtype == dtypes.float32

    @property
    def identity(self) -> str:
        kind = self.reduction.kind
        if kind in ("sum", "prod"):
            return literal(kind == "prod", self.dtype)
        return literal(extreme(self.dtype, lowest="max" in kind), self.dtype)

    def names(self, state: str = "acc") -> tuple[str, ...]:
        """The C variables of the state: the value and, for a position, where it was seen."""
        return (f"{state}{self.slot}", *((f"{state}_at{self.slot}",) if self.is_position else ()))

    def declare(self, lanes: int | None = None, state: str = "acc") -> list[str]:
        """Declares and begins the state; with ``lanes``, a row of them."""
        types, begins = (c_type(self.dtype), "int64_t"), (self.identity, "-1")
        lines = []
        for name, kind, begin in zip(self.names(state), types, begins, strict=False):
            if lanes is None:
                lines.append(f"{kind} {name} = {begin};")
            else:
                lines.append(f"{kind} {name}[{lanes}] __attribute__((aligned(64)));")
                lines.append(f"for (int64_t l = 0; l < {lanes}; ++l) {name}[l] = {begin};")
        return lines

    def add(self, value: str, position: str, lane: str = "") -> list[str]:
        """``value`` seen at ``position`` joins the state (of lane ``lane``, a subscript)."""
        names = [name + lane for name in self.names()]
        if not self.is_position:
            return [f"{names[0]} = {self._folded(names[0], value)};"]
        take = f"const _Bool take{self.slot} = {self._takes(names, value, position)};"
        update = [f"{n} = take{self.slot} ? {v} : {n};" for n, v in zip(names, (value, position), strict=True)]
        return ["{", take, *update, "}"]

    def merge(self, lane: str, other: str) -> list[str]:
        """Lane ``other`` joins lane ``lane``."""
        mine, its = ([name + which for name in self.names()] for which in (lane, other))
        if not self.is_position:
            return [f"{mine[0]} = {self._folded(mine[0], its[0])};"]
        take = f"{its[1]} >= 0 && ({self._takes(mine, its[0], its[1])})"
        return [f"if ({take}) {{ {mine[0]} = {its[0]}; {mine[1]} = {its[1]}; }}"]

    def result(self, lane: str = "") -> str:
        if self.is_position:
            name = self.names()[1] + lane
            return f"({name} < 0 ? 0 : {name})"
        return self.names()[0] + lane

    def _folded(self, a: str, b: str) -> str:
        function = functions.lookup(_FOLD[self.reduction.kind])
        unknown = Acc(self.dtype)
        return function.c(self.dtype, (a, b), (unknown, unknown))

    def _takes(self, state: Sequence[str], value: str, position: str) -> str:
        """Whether ``value`` at ``position`` beats the state; order of arrival does not matter."""
        best, at = state
        better = ">" if "max" in self.reduction.kind else "<"
        earlier = f"({position} {'>' if self.reduction.kind.endswith('_last') else '<'} {at})"
        wins = f"({at} < 0) | ({value} {better} {best}) | (({value} == {best}) & {earlier})"
        if not self.dtype.is_float:
            return wins
        nan = f"({value} != {value}) & (({best} == {best}) | {earlier})"
        return f"({at} < 0) | ({nan}) | (({best} == {best}) & ({wins}))"


def accumulators(problem: Problem) -> list[Accumulator]:
    reduction = problem.reduction
    assert reduction is not None
    held = [functions.compute_type(body.dtype) for body in problem.bodies]
    return [Accumulator(slot, reduction, dtype) for slot, dtype in enumerate(held)]
