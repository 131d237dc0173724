"""Where in its range an open plan on a GPU has kernels of its own, besides those for the tuned shape.

Tiles that fill a GPU at the tuned shape leave most of it idle at a thirtieth of the rows, and are too small for thirty times
as many. All plans' memory and order of steps stay as they are: a band is other launches of the same steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod

from redline.engine import OpenDim

LEAST_RATIO = 2  # of the sizes of neighbours: closer ones share kernels


@dataclass(frozen=True)
class Place:
    """Kernels chosen for dimensions of the values ``dims`` run where the product of the dimensions is ``least`` to ``most``."""

    dims: tuple[int, ...]
    least: int
    most: int


def places(dims: Sequence[OpenDim]) -> list[Place]:
    """The tuned shape, then one half way from the smallest to it and the largest, so far as they are apart from it.

    A size belongs to the nearest, on a logarithmic scale.
    """
    tuned = prod(dim.opt for dim in dims)
    half = tuple(round((dim.min * dim.opt) ** 0.5) for dim in dims)
    largest = tuple(dim.max for dim in dims)
    found = [Place(tuple(dim.opt for dim in dims), 0, prod(largest))]
    if prod(half) * LEAST_RATIO <= tuned:
        end = isqrt(prod(half) * tuned)
        found = [replace(found[0], least=end + 1), Place(half, 0, end)]
    if tuned * LEAST_RATIO <= prod(largest):
        end = isqrt(tuned * prod(largest))
        found = [replace(found[0], most=end), *found[1:], Place(largest, end + 1, prod(largest))]
    return found
