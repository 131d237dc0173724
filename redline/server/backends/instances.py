"""The instance for the engines of a model version: one of open shapes, or several of fixed batch extents."""

from collections.abc import Mapping

from redline.engine import Header, sole_dimension, without_steps
from redline.runtime import AnyEngine
from redline.server.backends.engine_instance import EngineInstance
from redline.server.backends.open_instance import OpenInstance


def make_instance(engines: Mapping[int, AnyEngine], max_batch_size: int, threads: int) -> EngineInstance | OpenInstance:
    """An instance with contexts of its own. ``engines`` by batch extent; one of open shapes stands under 0."""
    if list(engines) == [0] and takes_several(engines[0].header):
        return OpenInstance(engines[0].context(threads))
    contexts = {size: engine.context(threads) for size, engine in engines.items()}
    return EngineInstance(contexts, engines, max_batch_size)


def takes_several(header: Header) -> bool:
    """Whether an engine takes several shapes."""
    return bool(header.dims or header.variants)


def largest_batch(header: Header) -> tuple[int, int]:
    """(the most rows that may be in a batch whatever the other axes, the most with some); 0 where the first axis is no batch.

    Of plans that are open in the batch from 1 on; those for one shape alone are faster ways only.
    """
    mosts = []
    for plan in without_steps(header):
        batch = batch_dimension(plan) if plan.is_open else None
        if batch is not None and plan.dims[batch].min == 1:
            mosts.append(plan.dims[batch].max)
        elif plan.is_open:
            return 0, 0
    return (min(mosts), max(mosts)) if mosts else (0, 0)


def batch_dimension(header: Header) -> int | None:
    """Which open dimension is the first axis of every input and output, and of no other axis; None where there is none."""
    first, others = set(), set()
    for io in (*header.inputs, *header.outputs):
        if not io.extents:
            return None
        first.add(sole_dimension(io.extents[0]))
        others |= {index for terms in io.extents[1:] for _, *powers in terms for index, p in enumerate(powers) if p}
    found = first.pop() if len(first) == 1 else None
    return found[0] if found is not None and found[1] == 1 and found[0] not in others else None
