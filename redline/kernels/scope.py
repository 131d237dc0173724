"""What the renderers of C and of Triton share: one scope of named subexpressions, each rendered once.

A renderer says how a literal, a load and a call become text; here is the walk from an expression to its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from redline.base.dtypes import DType
from redline.kernels.expr import Acc, Expr, Index, Lit, Load


class Scope(ABC):
    """``coordinates`` are the texts of Index(0), Index(1), ..., ``accumulators`` those of Acc(0), Acc(1), ..."""

    def __init__(
        self, coordinates: Sequence[str], accumulators: Sequence[str], literal: Callable[[float | int | bool, DType], str]
    ) -> None:  # fmt: skip
        self.coordinates, self.accumulators = coordinates, accumulators
        self._literal = literal
        self._names: dict[Expr, str] = {}

    @abstractmethod
    def _load(self, expr: Load) -> str:
        """The name of a loaded element."""

    @abstractmethod
    def _call(self, expr: Expr) -> str:
        """The name of a function's value."""

    def _visit(self, expr: Expr) -> str:
        """The text of a value: its name, where it has one or gets one now."""
        if expr in self._names:
            return self._names[expr]
        if isinstance(expr, Lit):
            return self._literal(expr.value, expr.dtype)
        if isinstance(expr, Index):
            return self.coordinates[expr.axis]
        if isinstance(expr, Acc):
            return self.accumulators[expr.slot]
        self._names[expr] = self._load(expr) if isinstance(expr, Load) else self._call(expr)
        return self._names[expr]
