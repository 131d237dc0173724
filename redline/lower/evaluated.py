"""A program of open extents at one shape."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from redline.base.extents import Extent, value_at
from redline.kernels.expr import Expr
from redline.lower.program import Program


def evaluated(program: Program, dims: Sequence[int]) -> Program:
    """``program`` where the dimensions have the values ``dims``. Constants stay as they are."""
    at = _Evaluation(dims)
    return replace(
        program, buffers=at(program.buffers), steps=at(program.steps), inputs=at(program.inputs), outputs=at(program.outputs)
    )


class _Evaluation:
    """Numbers for extents, in trees of tuples and dataclasses; each expression once."""

    def __init__(self, dims: Sequence[int]) -> None:
        self.dims = dims
        self._expressions: dict[bytes, Any] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Extent):
            return value_at(value, self.dims)
        if isinstance(value, tuple):
            return tuple(map(self, value))
        if isinstance(value, Expr):
            if value.digest not in self._expressions:
                self._expressions[value.digest] = self._dataclass(value)
            return self._expressions[value.digest]
        return self._dataclass(value) if is_dataclass(value) and not isinstance(value, type) else value

    def _dataclass(self, value: Any) -> Any:
        found = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        changed = {name: self(part) for name, part in found.items()}
        return value if all(changed[n] is found[n] for n in found) else type(value)(**changed)
