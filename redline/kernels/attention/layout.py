"""The sizes of an attention kernel: blocks of queries and keys, what lies where in scratch, strides that the tiles use."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from redline.base.dtypes import DType
from redline.kernels import tile
from redline.kernels.attention.problem import Problem
from redline.kernels.attention.schedule import VALUE_VECTORS, Schedule, query_blocks, way
from redline.kernels.ctext import offset
from redline.kernels.dot import Dot
from redline.kernels.problem import CpuTarget, Operand
from redline.kernels.tile import CACHE_LINE, Panels, Split


@dataclass(frozen=True)
class Block:
    """``count`` consecutive blocks of ``lanes`` queries of which ``valid`` exist."""

    lanes: int
    valid: int
    count: int

    @property
    def name(self) -> str:
        return f"block_{self.lanes}_{self.valid}"


class Sizes(Protocol):
    """What the pieces of text that closed and open lengths share ask for."""

    problem: Problem
    acc: DType
    type: str
    dot: Dot
    panels: Panels
    width: int


@dataclass(frozen=True)
class Region:
    """An array in scratch."""

    name: str
    dtype: DType
    elements: int

    @property
    def num_bytes(self) -> int:
        """Its room, such that what follows begins on a cache line."""
        return -(-self.elements * self.dtype.size // CACHE_LINE) * CACHE_LINE


class Layout:
    """The sizes that a problem, a schedule and a target lead to."""

    def __init__(self, problem: Problem, schedule: Schedule, target: CpuTarget) -> None:
        self.problem, self.schedule, self.target = problem, schedule, target
        self.acc, self.type = problem.acc, problem.acc.c
        self.dot = way(problem, schedule)
        self.lanes = tile.lanes(problem.acc, target)
        self.queries = query_blocks(problem, schedule, target)
        self.keys = Split.of_at_most(self.dot.steps(problem.extents[3]), self.dot.steps(schedule.keys))  # in groups
        self.depth, self.width = problem.reads[0].shape[3], problem.reads[2].shape[3]
        self.panels = Panels(self.width, VALUE_VECTORS * self.lanes, self.lanes)
        self.num_steps = problem.extents[0] * problem.extents[1] * self.queries.count

    @property
    def num_keys(self) -> int:
        return self.problem.extents[3]

    @property
    def most_lanes(self) -> int:
        return self.queries.size * self.lanes

    @property
    def key_counts(self) -> list[int]:
        """The distinct numbers of keys in a block, large first."""
        ends = [min(end * self.dot.group, self.num_keys) for end in accumulate(self.keys.of(i) for i in range(self.keys.count))]
        return list(dict.fromkeys(end - begin for begin, end in zip([0, *ends], ends, strict=False)))

    @property
    def stages_keys(self) -> bool:
        return self.schedule.stage and self.dot.group == 1

    @property
    def regions(self) -> list[Region]:
        """The arrays in scratch. ``powers`` are the scores themselves, unless pairs of them are rounded."""
        group, keys, narrow = self.dot.group, self.keys.size * self.dot.group, self.dot.x
        staged = self.dot.steps(self.num_keys) * group if self.schedule.stage else 0
        return [
            Region("turned", narrow, self.depth * self.most_lanes), Region("scores", self.acc, keys * self.most_lanes),
            Region("powers", narrow, keys * self.most_lanes if group > 1 else 0),
            Region("held", self.acc, self.most_lanes * self.panels.padded), Region("lanes", self.acc, 4 * self.most_lanes),
            Region("keys", narrow, staged * self.depth if self.stages_keys else 0),
            Region("values", narrow, staged * self.panels.padded),
        ]  # fmt: skip

    @property
    def scratch_bytes(self) -> int:
        return sum(region.num_bytes for region in self.regions)

    @property
    def block_kinds(self) -> list[Block]:
        """The distinct blocks of queries, large first; a last one that holds fewer queries than lanes stands at the end."""
        split, rest = self.queries, self.problem.extents[2] % self.lanes
        counts = dict(zip(split.sizes, (split.num_large, split.count - split.num_large), strict=False))
        last = split.sizes[-1]
        counts[last] -= rest > 0
        kinds = [Block(vectors * self.lanes, vectors * self.lanes, count) for vectors, count in counts.items() if count]
        return kinds + ([Block(last * self.lanes, (last - 1) * self.lanes + rest, 1)] if rest else [])

    @property
    def key_strides(self) -> tuple[int, int]:
        """Elements from key to key and along a key, where the tile reads them."""
        return (self.depth, 1) if self.stages_keys else (self.problem.reads[1].strides[2], self.problem.reads[1].strides[3])

    @property
    def value_stride(self) -> int:
        return self.panels.padded if self.schedule.stage else self.problem.reads[2].strides[2]


def rounded(elements: int) -> int:
    """Room for ``elements`` such that what follows begins on a cache line."""
    return -(-elements // 16) * 16


def base(operand: Operand, names: list[str]) -> str:
    """The offset of what the leading coordinates ``names`` single out."""
    return offset(names, operand.strides[: len(names)])
