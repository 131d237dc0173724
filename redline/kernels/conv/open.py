"""Convolutions with open extents: of the batch, of the image, or of both. Channels, taps and weights are closed.

Where only the batch is open, the kernel for one image is called for each (per_image.py). A convolution of one tap and step is
a product with open rows. The others are direct or Winograd's, over bands or blocks whose number the call decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from redline.base.errors import BuildError
from redline.base.extents import Undecided, at_nominal, is_open, nominal
from redline.kernels import amx, dot, per_image, tile
from redline.kernels.conv import c, candidates, geometry, open_direct, open_winograd, pointwise
from redline.kernels.conv.open_direct import OpenDirect
from redline.kernels.conv.open_winograd import OpenWinograd
from redline.kernels.conv.problem import Problem
from redline.kernels.conv.schedule import Direct, Pointwise, Schedule, Winograd, way
from redline.kernels.parts import any_open
from redline.kernels.problem import CpuTarget, KernelCode, Operand


@dataclass(frozen=True)
class PerImage(Schedule):
    """``each`` for every image of an open batch."""

    each: Schedule


def render(problem: Problem, chosen: Schedule, target: CpuTarget) -> KernelCode:
    """The kernel for ``problem``, whether it is open or not."""
    if isinstance(chosen, PerImage):
        return per_image.wrapped(c.render(per_image.images(problem), chosen.each, target), problem)
    if isinstance(chosen, OpenDirect):
        return open_direct.render(problem, chosen, target)
    if isinstance(chosen, OpenWinograd):
        return open_winograd.render(problem, chosen, target)
    if isinstance(chosen, Pointwise) and any_open(problem.reads, problem.writes):
        return pointwise.render(problem, chosen.product, target)
    return c.render(problem, chosen, target)


def schedules(problem: Problem, target: CpuTarget) -> Sequence[Schedule]:
    """The candidates, the best guess first; raises BuildError where channels or taps are open."""
    if not any_open(problem.reads, problem.writes):
        return candidates.schedules(problem, target)
    products = _products(problem, target)
    if products:
        return products
    if per_image.applies(problem):
        return [PerImage(s) for s in candidates.schedules(per_image.images(problem), target)]
    g = geometry.of(problem)
    if any(map(is_open, problem.w.shape)) or g.size[0] != 1 or g.out_size[0] != 1:
        seen = f"a convolution of {list(problem.x.shape)} with {list(problem.w.shape)}"
        raise BuildError("conv", seen, "only the batch and one or two axes of an image may be open", "fix more with --shapes")
    if not problem.w.constant or problem.acc.size != 4:
        raise BuildError("conv", "open images with run-time weights, or not of float32", "", "fix the shapes")
    return _like_the_tuned_shape(problem, target)


def _products(problem: Problem, target: CpuTarget) -> list[Schedule]:
    """The ways to compute a convolution of one tap as a product with open rows; none where its rows do not step evenly."""
    if not pointwise.applies(problem):
        return []
    try:
        found = pointwise.product_schedules(problem, target)
    except (BuildError, Undecided):
        return []
    return [Pointwise(product) for product in found]


def _like_the_tuned_shape(problem: Problem, target: CpuTarget) -> list[Schedule]:
    """The open forms of the candidates at the tuned shape; factors stay whole."""
    found: dict[Schedule, None] = {}
    for closed in candidates.schedules(_tuned(problem), dot.without_parts(target)):
        if isinstance(closed, Winograd):
            found[_open_winograd(problem, closed, target)] = None
        elif isinstance(closed, Direct):
            tiled = way(problem, closed).tiled
            for prefetch in (closed.prefetch, not closed.prefetch):
                limit = amx.ROWS if tiled else tile.tallest(closed.vectors, target)
                how = closed.dot if tiled else ""
                found[OpenDirect(limit, closed.vectors, closed.panel_chunks, prefetch, how)] = None
    return list(found) or list(_plain(problem, target))


def _plain(problem: Problem, target: CpuTarget) -> Iterator[OpenDirect]:
    """For a convolution that would be a product if its rows stepped evenly: wide and narrow tiles."""
    filters = problem.w.shape[0] // problem.groups
    widest = -(-filters // tile.lanes(problem.acc, target))
    for vectors in dict.fromkeys((min(4, widest), min(2, widest))):
        panels = -(-widest // vectors)
        yield OpenDirect(tile.tallest(vectors, target), vectors, min(panels, target.num_threads))


def _open_winograd(problem: Problem, closed: Winograd, target: CpuTarget) -> OpenWinograd:
    g = geometry.of(problem)
    blocks = nominal(g.batch) * -(-nominal(g.out_size[1]) // closed.outputs) * -(-nominal(g.out_size[2]) // closed.outputs)
    sharing = target.num_threads if closed.panel_chunks == 1 else 1
    size = -(-blocks // closed.tile_chunks)
    return OpenWinograd(closed.outputs, closed.rows, closed.vectors, size, sharing, closed.panel_chunks, closed.prefetch)


def _tuned(problem: Problem) -> Problem:
    """``problem`` at the tuned shape. Its epilogue is left out: a guess at schedules asks nothing of it."""

    def closed(operand: Operand) -> Operand:
        return replace(operand, shape=at_nominal(operand.shape), strides=at_nominal(operand.strides))

    return replace(problem, x=closed(problem.x), out=closed(problem.out), extra=tuple(map(closed, problem.extra)))
