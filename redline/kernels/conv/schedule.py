"""Convolutions: the ways to compute one."""

from dataclasses import dataclass

from redline.base.dtypes import float32
from redline.base.shapes import size
from redline.kernels import amx, dot, matmul, tile
from redline.kernels.conv import filtering, geometry, pointwise
from redline.kernels.conv.geometry import Geometry
from redline.kernels.conv.problem import Problem
from redline.kernels.dot import Dot
from redline.kernels.problem import CpuTarget
from redline.kernels.tile import Split


@dataclass(frozen=True)
class Schedule:
    """One of the classes below."""


@dataclass(frozen=True)
class Direct(Schedule):
    """A register tile of ``height`` x ``width`` outputs and ``vectors`` vectors of filters, straight from the definition.

    The rows of tiles are cut into ``bands`` chunks, the panels of filters into ``panel_chunks``. ``staged`` first copies the
    rows that a chunk reads into scratch, with their padding. ``prefetch``: the next panel of constant weights is fetched while
    this one is used. ``dot`` names the instruction (kernels/dot.py), "" being the plain one.
    """

    height: int
    width: int
    vectors: int
    bands: int = 1
    panel_chunks: int = 1
    staged: bool = True
    prefetch: bool = False
    dot: str = ""


@dataclass(frozen=True)
class Flat(Schedule):
    """Tiles of ``height`` times 16 positions of flattened rows and ``vectors`` of filters on the matrix unit (flat.py).

    The rows are cut into ``bands`` chunks, the panels of filters into ``panel_chunks``. ``rows_outer`` and ``prefetch`` are
    those of matmul/schedule.py.
    """

    height: int
    vectors: int
    dot: str
    bands: int = 1
    panel_chunks: int = 1
    rows_outer: bool = False
    prefetch: bool = False


@dataclass(frozen=True)
class Pointwise(Schedule):
    """One tap: a matrix product of the pixels with the weights."""

    product: matmul.Schedule


@dataclass(frozen=True)
class Winograd(Schedule):
    """Blocks of ``outputs`` x ``outputs`` by minimal filtering (winograd.py), for 3x3 filters of stride 1 or 2.

    A register tile of ``rows`` blocks and ``vectors`` of filters. The blocks are cut into ``tile_chunks``, the panels of
    filters into ``panel_chunks``; each chunk transforms its own input.
    """

    outputs: int
    rows: int
    vectors: int
    tile_chunks: int = 1
    panel_chunks: int = 1
    prefetch: bool = False


def is_legal(problem: Problem, schedule: Schedule, target: CpuTarget) -> bool:
    """The one statement of what render accepts."""
    if isinstance(schedule, Pointwise):
        return pointwise.applies(problem) and pointwise.is_legal(problem, schedule.product, target)
    g = geometry.of(problem)
    if isinstance(schedule, Winograd):
        return (
            suits_winograd(g, problem)
            and (g.step[1], schedule.outputs) in filtering.KINDS
            and tile.fits(schedule.rows, schedule.vectors, target)
            and 1 <= schedule.tile_chunks <= g.num_blocks(schedule.outputs)
            and 1 <= schedule.panel_chunks <= g.panels(schedule.vectors, problem, target).count
        )
    if isinstance(schedule, Flat):
        return (
            flat_way(g, problem, target) is not None
            and schedule.dot in [dot.name for dot in dots(problem, target)]
            and amx.fits(schedule.height, schedule.vectors)
            and 1 <= schedule.bands <= g.out_size[1]
            and 1 <= schedule.panel_chunks <= g.panels(schedule.vectors, problem, target).count
            and not (schedule.rows_outer and schedule.prefetch)
        )
    assert isinstance(schedule, Direct)
    return (
        schedule.dot in [dot.name for dot in dots(problem, target)]
        and _fits(g, problem, schedule, target)
        and 1 <= schedule.bands <= Split.of_at_most(g.out_size[1], schedule.height).count
        and 1 <= schedule.panel_chunks <= g.panels(schedule.vectors, problem, target).count
        and (problem.w.constant or not schedule.prefetch)
        and (schedule.staged or not must_stage(g, problem, way(problem, schedule)))
    )


def _fits(g: Geometry, problem: Problem, s: Direct, target: CpuTarget) -> bool:
    if not way(problem, s).tiled:
        return tile.fits(s.height * s.width, s.vectors, target)
    return s.width <= amx.ROWS and amx.fits(s.height, s.vectors)


def way(problem: Problem, schedule: Direct) -> Dot:
    return dot.of(schedule.dot, problem.x.dtype, problem.w.dtype)


def dots(problem: Problem, target: CpuTarget) -> list[Dot]:
    """The ways to multiply, the fastest first."""
    x, w = problem.x.dtype, problem.w.dtype
    tiled = dot.tiled(x, w, target) if size(problem.w.shape[1:]) else None
    return ([tiled] if tiled else []) + list(dot.candidates(x, w, problem.w.constant, target))


def must_stage(g: Geometry, problem: Problem, dot: Dot) -> bool:
    """Whether x cannot be read in place: padding, another type, or groups of channels that do not lie side by side."""
    whole = dot.group == 1 or (problem.x.strides[-1] == 1 and g.channels == dot.steps(g.channels) * dot.group)
    return g.reaches_outside or problem.x.dtype != dot.x or dot.offset != 0 or not whole


def flat_way(g: Geometry, problem: Problem, target: CpuTarget) -> Dot | None:
    """The way in which flat.py multiplies; None where it does not do ``problem``."""
    best = next((way for way in dots(problem, target) if way.tiled and way.parts == 1), None)
    plane = g.groups == g.size[0] == g.taps[0] == g.out_size[0] == 1 and g.dilation == (1, 1, 1) and not g.pad[0]
    return best if best and plane and problem.w.constant and summed(g, problem, best) == g else None


def summed(g: Geometry, problem: Problem, dot: Dot) -> Geometry:
    """The axes of the inner sum: folded where single channels would not fill the groups of ``dot``."""
    uneven = g.channels % dot.group != 0 and g.taps[2] > 1
    return g.folded() if uneven and problem.w.constant and g.groups == g.dilation[2] == 1 else g


def suits_winograd(g: Geometry, problem: Problem) -> bool:
    """Whether minimal filtering is right for ``problem`` in exact arithmetic, and float32 is accurate enough."""
    return (
        (g.taps, g.dilation) == ((1, 3, 3), (1, 1, 1))
        and g.step in ((1, 1, 1), (1, 2, 2))
        and g.groups == g.size[0] == g.out_size[0] == 1
        and problem.acc == float32
        and problem.w.constant
        and not problem.pad_value
    )
