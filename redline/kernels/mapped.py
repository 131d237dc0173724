"""Problems with other numbers in them: every open extent replaced, through tuples, dataclasses and expressions."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from redline.base.dtypes import DType
from redline.base.extents import Extent
from redline.kernels.expr import Expr


def mapped(value: Any, extent: Callable[[Extent], Any]) -> Any:
    """``value`` with ``extent(e)`` in place of every open extent ``e`` within it."""
    return _Mapping(extent)(value)


class _Mapping:
    """Expressions share subexpressions; each is rebuilt once."""

    def __init__(self, extent: Callable[[Extent], Any]) -> None:
        self._extent = extent
        self._known: dict[Expr, Any] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Extent):
            return self._extent(value)
        if isinstance(value, Expr):
            if value not in self._known:
                self._known[value] = self._rebuilt(value)
            return self._known[value]
        if isinstance(value, tuple):
            return tuple(map(self, value))
        return self._rebuilt(value) if is_dataclass(value) and not isinstance(value, DType) else value

    def _rebuilt(self, value: Any) -> Any:
        return type(value)(**{f.name: self(getattr(value, f.name)) for f in fields(value) if f.init})
