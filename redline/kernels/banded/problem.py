"""A convolution whose result only some steps read, a row or a few of it for each row of theirs: what to compute.

    held     = the maker's result
    results  = those of the readers, each of which has ``held``, or a view of it, as an operand

As long as the whole of ``held`` is larger than the caches, every byte of it is written to where the next steps must fetch it
from. Made a band of rows at a time and read at once, it never leaves the second-level cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import numpy as np

from redline.base.shapes import size
from redline.kernels import conv, depthwise, nest, pool
from redline.kernels.banded.cut import ROWS, Window, cut, window
from redline.kernels.parts import any_open
from redline.kernels.problem import Family, Operand

READERS: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in (conv, depthwise, nest, pool)}


@dataclass(frozen=True)
class Reader:
    """``problem`` of ``family``: operand ``place`` of it is what the maker makes, from element ``offset`` on."""

    family: str
    problem: Any
    place: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Problem:
    """The operands are the maker's, then each reader's without what the maker makes."""

    maker: conv.Problem
    readers: tuple[Reader, ...]

    def __post_init__(self) -> None:
        assert applies(self.maker, self.readers), f"{self.maker} and {self.readers} are not to be joined"

    @property
    def reads(self) -> tuple[Operand, ...]:
        others = (o for r in self.readers for i, o in enumerate(r.problem.reads) if i != r.place)
        return (*self.maker.reads, *others)

    @property
    def writes(self) -> tuple[Operand, ...]:
        return tuple(write for reader in self.readers for write in reader.problem.writes)

    @property
    def flops(self) -> int:
        return self.maker.flops + sum(reader.problem.flops for reader in self.readers)

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple(found for reader in self.readers if (found := window(reader.problem)) is not None)

    @property
    def unit(self) -> int:
        """Rows of the maker's of which every band is a multiple."""
        return lcm(*(seen.step for seen in self.windows))


def held_as(maker: conv.Problem, windows: Sequence[Window]) -> Operand:
    """What lies between, with its padding of columns, as if all rows of one image were there."""
    out = maker.out
    _, height, width, channels = out.shape
    columns = width + max(seen.left for seen in windows) + max(seen.right for seen in windows)
    return replace(out, strides=(height * columns * channels, columns * channels, channels, 1))


def applies(maker: conv.Problem, readers: Sequence[Reader]) -> bool:
    """Whether they make one problem: a plain convolution of images, and readers that can be cut to bands of its rows."""
    operands = [o for reader in readers for o in (*reader.problem.reads, *reader.problem.writes)]
    if not readers or any_open(maker.reads, (*maker.writes, *operands)) or not size(maker.out.shape):
        return False
    if type(maker) is not conv.Problem or maker.rank != 2 or maker.groups != 1 or not maker.w.constant:
        return False
    windows = [window(reader.problem) for reader in readers]
    if not maker.out.is_contiguous or any(seen is None or seen.looks_ahead for seen in windows):
        return False
    known = [seen for seen in windows if seen is not None]
    unit, fills = lcm(*(seen.step for seen in known)), {seen.fill for seen in known} - {None}
    if maker.out.shape[ROWS] % unit or len(fills) > 1:
        return False
    held = held_as(maker, known)
    return all(
        reader.family in READERS and cut(reader.problem, reader.place, maker.out, held, unit) is not None for reader in readers
    )


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The definition: the convolution, then those who read its result."""
    count = len(problem.maker.reads)
    (made,) = conv.reference(problem.maker, arrays[:count])
    flat, rest = np.ascontiguousarray(made).reshape(-1), list(arrays[count:])
    results: list[np.ndarray] = []
    for reader in problem.readers:
        operand = reader.problem.reads[reader.place]
        strides = [stride * flat.itemsize for stride in operand.strides]
        view = np.lib.stride_tricks.as_strided(flat[reader.offset :], operand.shape, strides)
        others, rest = rest[: len(reader.problem.reads) - 1], rest[len(reader.problem.reads) - 1 :]
        given = [*others[: reader.place], view, *others[reader.place :]]
        results += READERS[reader.family].reference(reader.problem, given)
    return tuple(results)
