"""The running state of a reduction as C: one variable or a row of lanes, with how to begin, add a value and merge two.

A float maximum is kept by an instruction that forgets NaN, so the largest bit pattern without its sign is kept beside it:
above that of infinity it says that a NaN was seen. That is half the work of asking for NaN at every step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.kernels import functions
from redline.kernels.cexpr import c_type, literal
from redline.kernels.ctext import block
from redline.kernels.expr import Acc
from redline.kernels.functions import extreme

ARG_KINDS = ("argmax", "argmin", "argmax_last", "argmin_last")
KINDS = ("sum", "prod", "max", "min", *ARG_KINDS)
_FOLD = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}
_LANES = {"sum": "sum", "max": "max", "min": "min"}  # by kind: the helper that folds lanes of float
_INFINITY_BITS = "0x7f800000u"


@dataclass(frozen=True)
class Accumulator:
    """State number ``slot``: values of ``dtype`` (as held in C, so no 16-bit float) reduced by ``kind``."""

    slot: int
    kind: str
    dtype: DType

    @property
    def is_position(self) -> bool:
        return self.kind in ARG_KINDS

    @property
    def watches_nan(self) -> bool:
        return self.kind in ("max", "min") and self.dtype == dtypes.float32

    @property
    def needs_double(self) -> bool:
        """Whether long reductions should be continued in double now and then."""
        return self.kind in ("sum", "prod") and self.dtype == dtypes.float32

    @property
    def identity(self) -> str:
        if self.kind in ("sum", "prod"):
            return literal(self.kind == "prod", self.dtype)
        return literal(extreme(self.dtype, lowest="max" in self.kind), self.dtype)

    @property
    def variables(self) -> list[tuple[str, str, str]]:
        """(name, C type, first value): the value, then where it was seen or the watch for NaN."""
        found = [(f"acc{self.slot}", c_type(self.dtype), self.identity)]
        if self.is_position:
            found.append((f"acc_at{self.slot}", "int64_t", "-1"))
        if self.watches_nan:
            found.append((f"acc_bits{self.slot}", "uint32_t", "0"))
        return found

    @property
    def name(self) -> str:
        """The variable of the value."""
        return self.variables[0][0]

    def declare(self, lanes: int | None = None) -> list[str]:
        """Declares and begins the state; with ``lanes``, a row of them."""
        if lanes is None:
            return [f"{kind} {name} = {begin};" for name, kind, begin in self.variables]
        lines = []
        for name, kind, begin in self.variables:
            lines.append(f"{kind} {name}[{lanes}] __attribute__((aligned(64)));")
            lines.append(f"for (int64_t l = 0; l < {lanes}; ++l) {name}[l] = {begin};")
        return lines

    def add(self, value: str, position: str, lane: str = "") -> list[str]:
        """``value`` seen at ``position`` joins the state (of lane ``lane``, a subscript)."""
        names = [name + lane for name, _, _ in self.variables]
        if self.is_position:
            take = f"const _Bool take{self.slot} = {self._takes(names, value, position)};"
            update = [f"{n} = take{self.slot} ? {v} : {n};" for n, v in zip(names, (value, position), strict=True)]
            return ["{", take, *update, "}"]
        if self.watches_nan:
            return [self._blind(names[0], value), self._watch(names[1], f"(rl_bits({value}) & 0x7fffffffu)")]
        return [f"{names[0]} = {self._folded(names[0], value)};"]

    def merge(self, lane: str, other: str) -> list[str]:
        """Lane ``other`` joins lane ``lane``."""
        mine, its = ([name + which for name, _, _ in self.variables] for which in (lane, other))
        if self.is_position:
            take = f"{its[1]} >= 0 && ({self._takes(mine, its[0], its[1])})"
            return [f"if ({take}) {{ {mine[0]} = {its[0]}; {mine[1]} = {its[1]}; }}"]
        if self.watches_nan:
            return [self._blind(mine[0], its[0]), self._watch(mine[1], its[1])]
        return [f"{mine[0]} = {self._folded(mine[0], its[0])};"]

    def merge_lanes(self, lanes: int) -> list[str]:
        """All lanes join lane 0."""
        if self.dtype == dtypes.float32 and self.kind in _LANES and lanes % 16 == 0:
            lines = [f"{self.name}[0] = rl_{_LANES[self.kind]}_lanes({self.name}, {lanes});"]
            bits = self.variables[-1][0]
            return lines + ([f"{bits}[0] = rl_large_lanes({bits}, {lanes});"] if self.watches_nan else [])
        head = f"for (int64_t half = {lanes // 2}; half; half /= 2) for (int64_t l = 0; l < half; ++l)"
        return block(head, self.merge("[l]", "[l + half]"))

    def result(self, lane: str = "") -> str:
        names = [name + lane for name, _, _ in self.variables]
        if self.is_position:
            return f"({names[1]} < 0 ? 0 : {names[1]})"
        if self.watches_nan:
            return f'({names[1]} > {_INFINITY_BITS} ? __builtin_nanf("") : {names[0]})'
        return names[0]

    def _blind(self, name: str, value: str) -> str:
        return f"{name} = {value} {'>' if self.kind == 'max' else '<'} {name} ? {value} : {name};"

    @staticmethod
    def _watch(name: str, bits: str) -> str:
        return f"{name} = {bits} > {name} ? {bits} : {name};"

    def _folded(self, a: str, b: str) -> str:
        unknown = Acc(self.dtype)
        return functions.lookup(_FOLD[self.kind]).c(self.dtype, (a, b), (unknown, unknown))

    def _takes(self, state: Sequence[str], value: str, position: str) -> str:
        """Whether ``value`` at ``position`` beats the state; order of arrival does not matter."""
        best, at = state
        better = ">" if "max" in self.kind else "<"
        earlier = f"({position} {'>' if self.kind.endswith('_last') else '<'} {at})"
        wins = f"({at} < 0) | ({value} {better} {best}) | (({value} == {best}) & {earlier})"
        if not self.dtype.is_float:
            return wins
        nan = f"({value} != {value}) & (({best} == {best}) | {earlier})"
        return f"({at} < 0) | ({nan}) | (({best} == {best}) & ({wins}))"
