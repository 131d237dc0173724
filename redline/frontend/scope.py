"""Names to values while a model is walked: one scope a graph, inner graphs see the outer ones' names."""

from dataclasses import dataclass, field

from redline.base.errors import ModelError, closest
from redline.ir import Value


@dataclass
class Scope:
    """``lost`` are the names whose values cannot be built, because of a node already reported."""

    outer: "Scope | None" = None
    values: dict[str, Value] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)

    def define(self, name: str, value: Value | None, where: str) -> None:
        """Names ``value`` (None: a lost one). Raises ModelError when the name is taken in this scope."""
        if name in self.values or name in self.lost:
            raise ModelError(where, f"two values are called {name!r}", "every value has a name of its own")
        if value is None:
            self.lost.add(name)
        else:
            self.values[name] = value

    def find(self, name: str, where: str) -> Value | None:
        """The value called ``name``; None for a lost one. Raises ModelError for a name that nothing has defined yet."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            if name in scope.lost:
                return None
            scope = scope.outer
        raise ModelError(where, f"reads {name!r}, which nothing before it makes", closest(name, self.values))
