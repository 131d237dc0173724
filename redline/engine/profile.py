"""Open shapes as the header writes them: sums of products of the profile's dimensions."""

from collections.abc import Sequence
from math import prod

from redline.engine.header import IO

Terms = Sequence[Sequence[int]]


def extent(terms: Terms, dims: Sequence[int]) -> int:
    """The value of an axis where the dimensions have the values ``dims``."""
    return sum(factor * prod(value**power for value, power in zip(dims, powers, strict=True)) for factor, *powers in terms)


def shape_at(io: IO, dims: Sequence[int]) -> tuple[int, ...]:
    """The shape of an input or output at these dimensions."""
    return tuple(extent(terms, dims) for terms in io.extents) if io.extents else io.shape


def sole_dimension(terms: Terms) -> tuple[int, int] | None:
    """(dimension, factor) of an axis that is a multiple of one dimension, as those of inputs are; else None."""
    if len(terms) != 1 or sum(terms[0][1:]) != 1 or max(terms[0][1:]) != 1:
        return None
    return list(terms[0][1:]).index(1), terms[0][0]
