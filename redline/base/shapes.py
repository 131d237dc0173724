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
class ShapeRange:
    """The shapes that an input may have: the smallest, the one to tune for, and the largest.

    ``step``: each extent is a multiple of this one, axis by axis; empty: of whatever the model demands.
    """

    min: StaticShape
    opt: StaticShape
    max: StaticShape
    step: StaticShape = ()

    def __post_init__(self) -> None:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise RedlineError("--shapes", f"{self} has shapes of different ranks")
        if any(not 1 <= low <= opt <= high for low, opt, high in zip(self.min, self.opt, self.max, strict=True)):
            raise RedlineError("--shapes", f"{self} is no range", "expected MIN,OPT,MAX, in every axis from 1 up")
        if self.step and (len(self.step) != len(self.min) or min(self.step) < 1):
            raise RedlineError(
                "--shapes", f"{self} has the step {text(self.step)}", "expected one number from 1 up for every axis"
            )
        if any(
            extent % step for shape in (self.min, self.opt, self.max) for extent, step in zip(shape, self.step, strict=False)
        ):
            raise RedlineError("--shapes", f"{self} is no range", "expected multiples of the step, the fourth shape")

    def __str__(self) -> str:
        return ",".join(map(text, (self.min, self.opt, self.max, *([self.step] if self.step else []))))


Shapes = dict[str, StaticShape | ShapeRange]


def parse_shapes(texts: Sequence[str]) -> Shapes:
    """``["ids:1x1,8x128,32x512", "mask:1x128"]`` as ``{"ids": ShapeRange(...), "mask": (1, 128)}``; a fourth shape is the step.

    One text may hold several inputs: ``"ids:1x128;mask:1x128"``. Raises RedlineError for anything else.
    """
    profiles = parse_profiles(texts)
    if len(profiles) > 1:
        raise RedlineError("--shapes", f"input {next(iter(profiles[1]))!r} is given twice")
    return profiles[0]


def parse_profiles(texts: Sequence[str]) -> list[Shapes]:
    """As ``parse_shapes``; a text with an input that has been given begins the next profile. At least one, maybe empty."""
    profiles: list[Shapes] = [{}]
    for item in texts:
        found = _parse_inputs(item, "--shapes")
        if any(name in profiles[-1] for name in found):
            profiles.append({})
        profiles[-1] |= found
    return profiles


def parse_buckets(texts: Sequence[str]) -> dict[str, dict[str, StaticShape] | None]:
    """``["short=ids:1x16;mask:1x16", "opt"]`` as ``{"short": {...}, "opt": None}``; raises RedlineError for anything else."""
    buckets: dict[str, dict[str, StaticShape] | None] = {}
    for item in texts:
        name, equals, inputs = item.partition("=")
        if not name or name in buckets or (equals and not inputs):
            seen = f"{name!r} is given twice" if name in buckets else f"{item!r} names no bucket"
            raise RedlineError("--bucket", seen, "expected NAME=INPUT:1x16, or NAME=INPUT:1x16;OTHER:1x16")
        buckets[name] = fixed(_parse_inputs(inputs, "--bucket"), f"bucket {name!r}") if equals else None
    return buckets


def _parse_inputs(text: str, where: str) -> Shapes:
    """``ids:1x1,8x128,32x512;mask:1x128``; blanks separate inputs too, and commas that a name follows."""
    shapes: Shapes = {}
    for item in re.split(r"[;\s]+|,(?=[^,;\s]*:)", text.strip("; ")):
        name, colon, extents = item.rpartition(":")
        parts = extents.split(",")
        if not colon or len(parts) not in (1, 3, 4) or not all(re.fullmatch(r"(\d+(x\d+)*)?|scalar", part) for part in parts):
            allowed = "expected NAME:1x3x224x224, or a range NAME:MIN,OPT,MAX or NAME:MIN,OPT,MAX,STEP"
            raise RedlineError(where, f"{item!r} is no shape", allowed)
        if name in shapes:
            raise RedlineError(where, f"input {name!r} is given twice")
        found = [_parse(part) for part in parts]
        shapes[name] = found[0] if len(found) == 1 else ShapeRange(*found)
    return shapes


def fixed(shapes: Mapping[str, StaticShape | ShapeRange], what: str) -> dict[str, StaticShape]:
    """``shapes`` itself when none is a range; raises RedlineError saying that ``what`` takes none."""
    for name, shape in shapes.items():
        if isinstance(shape, ShapeRange):
            raise RedlineError("--shapes", f"{what} with a range for {name!r}", "allowed: fixed shapes", "give it one shape")
    return dict(shapes)  # type: ignore[arg-type]  # none is a range


def _parse(extents: str) -> StaticShape:
    return tuple(int(e) for e in extents.split("x")) if extents not in ("", "scalar") else ()


def check_names(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises RedlineError for the first given name that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            raise RedlineError(where, f"there is no input {name!r}", closest(name, known))
