"""A convolution whose result only some steps read, a row or a few of it for each row of theirs: what to compute.

    held     = the maker's result
    results  = those of the readers, each of which has ``held``, a view of it, or another reader's result as an operand

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
from redline.kernels.banded.cut import ROWS, Cut, Window, cut, window
from redline.kernels.parts import any_open
from redline.kernels.problem import Family, Operand

MAKER = -1
READERS: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in (conv, depthwise, nest, pool)}


@dataclass(frozen=True)
class Reader:
    """``problem`` of ``family``: operand ``place`` of it is what the maker makes, from element ``offset`` on.

    ``of``: the number of the reader whose result it is instead, which then is held, too.
    """

    family: str
    problem: Any
    place: int = 0
    offset: int = 0
    of: int = MAKER

    @property
    def others(self) -> tuple[Operand, ...]:
        """What it reads beside that."""
        return tuple(operand for i, operand in enumerate(self.problem.reads) if i != self.place)


@dataclass(frozen=True)
class Problem:
    """The operands are the maker's, then each reader's without what is held. Readers come after those that they are ``of``."""

    maker: conv.Problem
    readers: tuple[Reader, ...]

    def __post_init__(self) -> None:
        assert applies(self.maker, self.readers), f"{self.maker} and {self.readers} are not to be joined"

    @property
    def reads(self) -> tuple[Operand, ...]:
        return (*self.maker.reads, *(operand for reader in self.readers for operand in reader.others))

    @property
    def writes(self) -> tuple[Operand, ...]:
        return tuple(w for i, reader in enumerate(self.readers) if i not in self.inner for w in reader.problem.writes)

    @property
    def flops(self) -> int:
        return self.maker.flops + sum(reader.problem.flops for reader in self.readers)

    @property
    def inner(self) -> frozenset[int]:
        """The readers whose results are held."""
        return frozenset(reader.of for reader in self.readers) - {MAKER}

    @property
    def windows(self) -> tuple[Window, ...]:
        """Of those that read what the maker makes."""
        found = (window(reader.problem) for reader in self.readers if reader.of == MAKER)
        return tuple(each for each in found if each is not None)

    @property
    def unit(self) -> int:
        """Rows of the maker's of which every band is a multiple."""
        return _unit(self.readers)


def held_as(maker: conv.Problem, windows: Sequence[Window]) -> Operand:
    """What lies between, with its padding of columns, as if all rows of one image were there."""
    out = maker.out
    _, height, width, channels = out.shape
    columns = width + max(seen.left for seen in windows) + max(seen.right for seen in windows)
    return replace(out, strides=(height * columns * channels, columns * channels, channels, 1))


def cuts_of(maker: conv.Problem, readers: Sequence[Reader], held: Operand, rows: int) -> list[Cut] | None:
    """The readers for a band of ``rows`` of the maker's; None where one cannot be cut."""
    found: list[Cut] = []
    for reader, step in zip(readers, _steps(readers), strict=True):
        image, lies = (maker.out, held) if reader.of == MAKER else (readers[reader.of].problem.writes[0],) * 2
        seen = window(reader.problem)
        small = cut(reader.problem, reader.place, image, lies, rows * (seen.step if seen else 1) // step)
        if small is None:
            return None
        found.append(small)
    return found


def _steps(readers: Sequence[Reader]) -> list[int]:
    """Rows of the maker's for a row of each reader."""
    steps: list[int] = []
    for reader in readers:
        seen = window(reader.problem)
        steps.append((seen.step if seen else 1) * (1 if reader.of == MAKER else steps[reader.of]))
    return steps


def _unit(readers: Sequence[Reader]) -> int:
    return lcm(*_steps(readers))


def applies(maker: conv.Problem, readers: Sequence[Reader]) -> bool:
    """Whether they make one problem: a plain convolution of images, and readers that can be cut to bands of its rows."""
    operands = [o for reader in readers for o in (*reader.problem.reads, *reader.problem.writes)]
    if not readers or any_open(maker.reads, (*maker.writes, *operands)) or not size(maker.out.shape):
        return False
    if type(maker) is not conv.Problem or maker.rank != 2 or maker.groups != 1 or not maker.w.constant:
        return False
    found = [window(reader.problem) if reader.family in READERS else None for reader in readers]
    seen = [each for each in found if each is not None]
    if not maker.out.is_contiguous or len(seen) < len(found) or any(each.looks_ahead for each in seen):
        return False
    outer = [each for each, reader in zip(seen, readers, strict=True) if reader.of == MAKER]
    inner = [each for each, reader in zip(seen, readers, strict=True) if reader.of != MAKER]
    if not outer or any(each.before or each.left or each.right for each in inner) or not _are_held(readers):
        return False
    if maker.out.shape[ROWS] % _unit(readers) or len({each.fill for each in outer} - {None}) > 1:
        return False
    return cuts_of(maker, readers, held_as(maker, outer), _unit(readers)) is not None


def _are_held(readers: Sequence[Reader]) -> bool:
    """Whether results that others read are images that lie side by side, of readers before them."""
    pairs = [(number, reader.of) for number, reader in enumerate(readers) if reader.of != MAKER]
    return all(
        of < number and isinstance(readers[of].problem, conv.Problem) and readers[of].problem.out.is_contiguous
        for number, of in pairs
    )  # fmt: skip


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The definition: the convolution, then those who read its result."""
    count = len(problem.maker.reads)
    (made,) = conv.reference(problem.maker, arrays[:count])
    rest, results = list(arrays[count:]), list[tuple[np.ndarray, ...]]()
    for reader in problem.readers:
        image = made if reader.of == MAKER else results[reader.of][0]
        flat, operand = np.ascontiguousarray(image).reshape(-1), reader.problem.reads[reader.place]
        strides = [stride * flat.itemsize for stride in operand.strides]
        view = np.lib.stride_tricks.as_strided(flat[reader.offset :], operand.shape, strides)
        others, rest = rest[: len(reader.others)], rest[len(reader.others) :]
        given = [*others[: reader.place], view, *others[reader.place :]]
        results.append(READERS[reader.family].reference(reader.problem, given))
    return tuple(each for number, found in enumerate(results) if number not in problem.inner for each in found)
