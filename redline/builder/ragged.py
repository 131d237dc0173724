"""A build for sequences that lie one behind the other, without padding: tokens and sequences are the open dimensions.

In: a model whose open inputs are [batch, length], and their range. Out: a program over (tokens, sequences), whose inputs are
[1, tokens], and three more (passes/ragged.py). Lengths are those of the range, and tokens at most what the largest padded
batch would have.
"""

from collections.abc import Callable, Mapping

from redline.base.errors import BuildError
from redline.base.extents import dimension
from redline.base.shapes import Shape, ShapeRange, StaticShape
from redline.builder.shapes import Given, Profile, Shapes, profile
from redline.engine import OpenDim
from redline.ir import Graph
from redline.lower import Program
from redline.lower.evaluated import evaluated
from redline.lower.opening import Opened, opened
from redline.passes import ragged

Optimized = Callable[[Mapping[str, StaticShape]], Graph]


def open_ragged(
    given: Given, declared: Mapping[str, Shape | None], optimized: Optimized, lower: Callable[[Graph], Program]
) -> tuple[Opened, Shapes]:
    """The program for all numbers of tokens and sequences; ``optimized`` gives the model's graph at fixed shapes.

    Raises BuildError where the inputs are not of that form, or the model mixes tokens in a way that is not known.
    """
    padded = _padded(given, declared)
    batch, length = padded.dims
    dims = (
        OpenDim("tokens", length.min, batch.opt * length.opt, batch.max * length.max),
        OpenDim("sequences", batch.min, batch.opt, batch.max),
    )
    longest = optimized(padded.at((1, length.max)))
    shorter = OpenDim("tokens", length.min, length.min, length.max - 1)  # the longest tells what counts tokens
    points = Profile({}, (shorter, dims[1]), ((), ()), (1, 1)).points()
    graphs = {tokens: optimized(padded.at((1, tokens))) for tokens in dict.fromkeys(tokens for tokens, _ in points)}
    programs = [lower(ragged.run(graphs[tokens], longest, sequences)) for tokens, sequences in points]
    extents = [dimension(i, d.min, d.max, d.opt) for i, d in enumerate(dims)]
    found = opened(points, programs, extents)
    largest = evaluated(found.program, [dim.max for dim in dims])
    return Opened(found.program, largest), Shapes.of(found.program, dims, extents)


def _padded(given: Given, declared: Mapping[str, Shape | None]) -> Profile:
    """The profile of the padded batch; its dimensions are batch and length."""
    found = profile(given, declared)
    places = found.places if found is not None else ()
    inputs = [name for name, shape in given.items() if isinstance(shape, ShapeRange)]
    if found is None or [sorted(p) for p in places] != [sorted((name, axis) for name in inputs) for axis in (0, 1)]:
        seen = "the open axes of " + (", ".join(inputs) or "no input") + " are not batch and length"
        raise BuildError("ragged", seen, "allowed: inputs [batch, length], with ranges for both", "give --shapes MIN,OPT,MAX")
    return found
