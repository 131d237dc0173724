"""Random inputs for an engine: values that a model is likely to accept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from redline.base import dtypes, shapes
from redline.base.errors import InputError
from redline.base.shapes import StaticShape
from redline.engine import IO, Header, shape_at, sole_dimension, spans, without_steps

RANDOM_RULE = "floats normal, 8-bit integers over their range, other integers and truth values 0 or 1"


def random_array(io: IO, rng: np.random.Generator) -> np.ndarray:
    """Wide integers may be indices or flags, and 0 and 1 are valid as both."""
    dtype = dtypes.from_name(io.dtype)
    if dtype.is_float:
        return rng.standard_normal(io.shape).astype(dtype.numpy)
    if dtype.is_integer and dtype.size == 1:
        limits = np.iinfo(dtype.numpy)
        return rng.integers(limits.min, limits.max, io.shape, dtype.numpy, endpoint=True)
    return rng.integers(0, 2, io.shape).astype(dtype.numpy)


def random_inputs(inputs: Sequence[IO], seed: int) -> dict[str, np.ndarray]:
    """An array for every input; the same seed gives the same arrays."""
    rng = np.random.default_rng(seed)
    return {io.name: random_array(io, rng) for io in inputs}


def inputs_at(header: Header, given: Mapping[str, StaticShape]) -> tuple[IO, ...]:
    """The inputs where some have the shapes ``given``; the others as these say, or as the engine is tuned for.

    Without any, those of the first plan at its largest. Raises InputError for shapes that no plan takes.
    """
    shapes.check_names(given, [io.name for io in header.inputs], "--shapes")
    if not given:
        return header.inputs
    for plan in sorted(without_steps(header), key=lambda plan: plan.is_open):
        found = [shape_at(io, _dims(plan, given)) for io in plan.inputs]
        if all(given.get(io.name, shape) == shape for io, shape in zip(plan.inputs, found, strict=True)):
            return tuple(replace(io, shape=shape, extents=()) for io, shape in zip(plan.inputs, found, strict=True))
    seen = ", ".join(f"{name} {shapes.text(shape)}" for name, shape in given.items())
    raise InputError("--shapes", f"no plan of the engine takes {seen}", _allowed(header))


def _dims(plan: Header, given: Mapping[str, StaticShape]) -> list[int]:
    """The tuned dimensions, but those that the given shapes say, as far as the plan takes them."""
    dims = [dim.opt for dim in plan.dims]
    for io in plan.inputs:
        for terms, extent in zip(io.extents, given.get(io.name, ()), strict=False):
            sole = sole_dimension(terms)
            if sole is not None and extent % sole[1] == 0:
                dim = plan.dims[sole[0]]
                dims[sole[0]] = min(max(extent // sole[1], dim.min), dim.max)
    return dims


def _allowed(header: Header) -> str:
    """What the plans together reach from and to."""
    axes = spans(header)
    texts = (
        f"{io.name} {'x'.join(str(low) if low == high else f'{low}..{high}' for low, high in axes[io.name])}"
        for io in header.inputs
    )
    return f"they reach over {', '.join(texts)}"
