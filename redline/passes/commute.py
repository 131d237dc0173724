"""How a Reshape and a Transpose change places, and how a flattened Transpose goes into the weights after it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base.shapes import StaticShape


@dataclass(frozen=True)
class Block:
    """Axes of a Reshape's input that become axes of its output, as few as possible; without those of extent 1."""

    source: tuple[int, ...]
    target: tuple[int, ...]


def blocks(source: Sequence[int], target: Sequence[int]) -> list[Block] | None:
    """Cuts a Reshape into blocks, in order. None for tensors of no elements."""
    if 0 in source:
        return None
    a = [axis for axis, extent in enumerate(source) if extent != 1]
    b = [axis for axis, extent in enumerate(target) if extent != 1]
    found: list[Block] = []
    i = j = 0
    while i < len(a):
        first_i, first_j = i, j
        size_a, size_b, i, j = source[a[i]], target[b[j]], i + 1, j + 1
        while size_a != size_b:
            if size_a < size_b:
                size_a, i = size_a * source[a[i]], i + 1
            else:
                size_b, j = size_b * target[b[j]], j + 1
        found.append(Block(tuple(a[first_i:i]), tuple(b[first_j:j])))
    return found


@dataclass(frozen=True)
class Swapped:
    """Reshape(Transpose(x)) as Transpose(Reshape(x, shape), perm)."""

    shape: StaticShape
    perm: tuple[int, ...]


def swap(shape: Sequence[int], perm: Sequence[int], target: Sequence[int]) -> Swapped | None:
    """How Reshape to ``target`` of Transpose by ``perm`` of an x of ``shape`` can be written the other way round.

    It can where each block of the Reshape takes axes that lie side by side and in order in x, those of extent 1 aside.
    """
    found = blocks([shape[axis] for axis in perm], target)
    if found is None:
        return None
    place = {axis: i for i, axis in enumerate(axis for axis, extent in enumerate(shape) if extent != 1)}
    at = [[place[perm[axis]] for axis in block.source] for block in found]
    if any(places != list(range(places[0], places[0] + len(places))) for places in at):
        return None
    # A target axis of extent 1 stays behind the one before it; those before all others stay in front.
    home = [-1] * len(target)
    for axis, extent in enumerate(target):
        home[axis] = home[axis - 1] if axis and extent == 1 else -1
        for places, block in zip(at, found, strict=True):
            if axis in block.target:
                home[axis] = places[0]
    order = sorted(range(len(target)), key=lambda axis: (home[axis], axis))
    return Swapped(tuple(target[axis] for axis in order), tuple(order.index(axis) for axis in range(len(target))))


@dataclass(frozen=True)
class Flattened:
    """Reshape(Transpose(x)) whose last axis holds the same elements in another order: by ``perm``, then taking ``rows``."""

    perm: tuple[int, ...]
    rows: np.ndarray


def unshuffled(shape: Sequence[int], perm: Sequence[int], target: Sequence[int]) -> Flattened | None:
    """How the axes that Reshape merges into its last one can stand in x's own order instead; None where they do.

    Element ``i`` of the new last axis is element ``rows[i]`` of the old one.
    """
    found = blocks([shape[axis] for axis in perm], target)
    if not found or found[-1].target != (len(target) - 1,):
        return None
    merged = found[-1].source
    order = sorted(range(len(merged)), key=lambda i: perm[merged[i]])
    if order == list(range(len(merged))):
        return None
    rows = np.arange(target[-1]).reshape([shape[perm[axis]] for axis in merged]).transpose(order).reshape(-1)
    new_perm = list(perm)
    for axis, i in zip(merged, order, strict=True):
        new_perm[axis] = perm[merged[i]]
    return Flattened(tuple(new_perm), rows)
