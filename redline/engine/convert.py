"""Frozen dataclasses to plain JSON values and back, strictly: no field missing, unknown or of another type."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Dataclasses as objects, tuples as arrays, the rest as it is."""
    if is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def from_json(kind: type[T], value: Any, path: str = "header") -> T:
    """``value`` as a ``kind``; raises ValueError naming the path of the first thing that does not fit."""
    return _convert(kind, value, path)


def _convert(kind: Any, value: Any, path: str) -> Any:
    if kind is int:
        return value if _is_int64(value) else _fail("64-bit integer", value, path)
    if kind is str or kind is bool:
        return value if type(value) is kind else _fail(kind, value, path)
    if kind is float:
        return float(value) if type(value) is float or _is_int64(value) else _fail(kind, value, path)
    if kind is Any:
        return value
    origin = get_origin(kind)
    if origin is tuple:
        return _tuple(get_args(kind)[0], value, path)
    if origin in (Union, types.UnionType):
        return _optional(get_args(kind), value, path)
    if origin is Mapping:
        return value if isinstance(value, dict) else _fail("object", value, path)
    return _dataclass(kind, value, path)


def _is_int64(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _tuple(item: Any, value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _fail("array", value, path)
    if item is int and all(map(_is_int64, value)):
        return tuple(value)
    return tuple(_convert(item, element, f"{path}[{index}]") for index, element in enumerate(value))


def _optional(options: tuple[Any, ...], value: Any, path: str) -> Any:
    (kind,) = (option for option in options if option is not type(None))
    return None if value is None else _convert(kind, value, path)


@cache
def _fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}  # type: ignore[arg-type]


def _dataclass(kind: type, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        _fail(kind, value, path)
    known = _fields(kind)
    if value.keys() != known.keys():
        missing, unknown = sorted(known.keys() - value.keys()), sorted(value.keys() - known.keys())
        raise ValueError(f"{path}: fields missing {missing}, unknown {unknown}")
    return kind(**{name: _convert(hint, value[name], f"{path}.{name}") for name, hint in known.items()})


def _fail(kind: Any, value: Any, path: str) -> Any:
    name = kind if isinstance(kind, str) else kind.__name__
    raise ValueError(f"{path}: expected {name}, found {type(value).__name__}")
