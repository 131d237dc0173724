"""Shapes: tuples of extents in which a dimension is an int or, before it is fixed, a named symbol."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from redline.base.errors import RedlineError, closest


@dataclass(frozen=True)
class Sym:
    """A dimension whose extent is not known yet, such as ``batch``."""

    name: str

    def __repr__(self) -> str:
        return self.name


Dim = int | Sym
Shape = tuple[Dim, ...]
StaticShape = tuple[int, ...]


def is_static(shape: Shape) -> bool:
    return all(isinstance(dim, int) for dim in shape)


def static(shape: Shape, where: str = "shape") -> StaticShape:
    """``shape`` itself when every dimension is known; raises RedlineError naming the open ones."""
    open_dims = [repr(dim) for dim in shape if not isinstance(dim, int)]
    if open_dims:
        raise RedlineError(where, f"dimension {', '.join(open_dims)} of {text(shape)} is open", "", "fix it with --shapes")
    return tuple(int(dim) for dim in shape)  # type: ignore[arg-type]


def size(shape: Iterable[int]) -> int:
    """The number of elements; 1 for a scalar."""
    return math.prod(shape)


def text(shape: Shape) -> str:
    """``1x3x224x224``, as on the command line; ``scalar`` for rank 0."""
    return "x".join(str(dim) if isinstance(dim, int) else dim.name for dim in shape) or "scalar"


def contiguous_strides(shape: Sequence[int]) -> StaticShape:
    """Row-major strides in elements."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def broadcast(*shapes: Shape) -> Shape:
    """The ONNX (numpy) multidirectional broadcast of the shapes; raises RedlineError where two extents conflict."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = []
    for axis in range(rank):
        extents = {s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0} - {1}
        if len(extents) > 1:
            raise RedlineError("broadcast", f"shapes {', '.join(map(text, shapes))} conflict in axis {axis}")
        out.append(extents.pop() if extents else 1)
    return tuple(out)


def axis_index(axis: int, rank: int, where: str) -> int:
    """A possibly negative axis as an index in [0, rank); raises RedlineError outside it."""
    if not -rank <= axis < rank:
        raise RedlineError(where, f"axis {axis} of a tensor of rank {rank}", f"allowed: {-rank}..{rank - 1}")
    return axis % rank


@dataclass(frozen=True)
class Profile:
    """The shapes one engine is made for: for each input the smallest, the tuned and the largest."""

    min: Mapping[str, StaticShape]
    opt: Mapping[str, StaticShape]
    max: Mapping[str, StaticShape]


def parse_shapes(texts: Sequence[str]) -> dict[str, StaticShape]:
    """``["ids:1x128", "mask:1x128"]`` as ``{"ids": (1, 128), ...}``; raises RedlineError for anything else."""
    shapes: dict[str, StaticShape] = {}
    for item in texts:
        name, colon, extents = item.rpartition(":")
        if not colon or not re.fullmatch(r"(\d+(x\d+)*)?|scalar", extents):
            raise RedlineError("--shapes", f"{item!r} is no shape", "expected NAME:1x3x224x224")
        if name in shapes:
            raise RedlineError("--shapes", f"input {name!r} is given twice")
        shapes[name] = tuple(int(e) for e in extents.split("x")) if extents not in ("", "scalar") else ()
    return shapes


def check_names(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises RedlineError for the first given name that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            raise RedlineError(where, f"there is no input {name!r}", closest(name, known))
