"""Where in its range an open plan on a GPU has kernels of its own, besides those for the tuned shape.

Tiles that fill a GPU at the tuned shape leave most of it idle at a thirtieth of the rows, and are too small for thirty times
as many. All plans' memory and order of steps stay as they are: a band is other launches of the same steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt, prod

from redline.engine import OpenDim

LEAST_RATIO = 2  # of the sizes of neighbours: closer ones share kernels
SHARES = (0.75, 0.5)  # of the way from the smallest to the tuned shape, on a logarithmic scale


@dataclass(frozen=True)
class Place:
    """Kernels chosen for dimensions of the values ``dims`` run where the product of the dimensions is ``least`` to ``most``."""

    dims: tuple[int, ...]
    least: int
    most: int


def places(dims: Sequence[OpenDim]) -> list[Place]:
    """The tuned shape, then the smaller ones and the largest, so far as they are apart from each other.

    A size belongs to the nearest, on a logarithmic scale.
    """
    tuned = tuple(dim.opt for dim in dims)
    points = [tuned]
    for share in SHARES:
        point = tuple(round(dim.min ** (1 - share) * dim.opt**share) for dim in dims)
        if prod(point) * LEAST_RATIO <= prod(points[0]):
            points.insert(0, point)
    largest = tuple(dim.max for dim in dims)
    if prod(tuned) * LEAST_RATIO <= prod(largest):
        points.append(largest)
    ends = [isqrt(prod(a) * prod(b)) for a, b in pairwise(points)]
    found = [Place(p, a + 1, b) for p, a, b in zip(points, [-1, *ends], [*ends, prod(largest)], strict=True)]
    return sorted(found, key=lambda place: place.dims != tuned)
