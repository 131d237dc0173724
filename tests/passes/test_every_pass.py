"""Every pass alone on random graphs: sound types, and the same outputs by the interpreter."""

from collections.abc import Callable

import pytest

from redline import ops, passes
from redline.ir import Graph
from redline.ir.verify import verify
from redline.passes import (
    channels_last,
    decompose,
    eliminate_common_subexpressions,
    flush_weights,
    fold_constants,
    fold_padding,
    fold_scale_shift,
    merge_projections,
    push_transposes,
    reassociate,
    recognise_activations,
    recognise_attention,
    recognise_normalization,
    shape_rows,
    simplify_arithmetic,
    simplify_movement,
    sink_reshapes,
    transposed_as_product,
)
from tests.builder.random_graphs import feeds_of, grown
from tests.lower.test_random_programs import agree

ALL: dict[str, Callable[[Graph], Graph]] = {
    module.__name__.rpartition(".")[2]: module.run
    for module in (
        channels_last, decompose, eliminate_common_subexpressions, flush_weights, fold_constants, fold_padding,
        fold_scale_shift, merge_projections, push_transposes, reassociate, recognise_activations, recognise_attention,
        recognise_normalization, shape_rows, simplify_arithmetic, simplify_movement, sink_reshapes,
        transposed_as_product,
    )
}  # fmt: skip
ALL["scale_and_bias"] = recognise_normalization.take_scale_and_bias


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_pass_keeps_the_meaning(name: str, count: int) -> None:
    for seed in range(30_000, 30_000 + count):
        graph = grown(seed, 1 + seed % 24)
        new = ALL[name](graph)
        verify(new, ops.infer)
        feeds = feeds_of(graph)
        agree(ops.run(new, feeds), graph, feeds)


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_pass_keeps_the_meaning_amid_the_others(count: int) -> None:
    """After each of the pipeline's passes."""
    for seed in range(40_000, 40_000 + count):
        graph = grown(seed, 1 + seed % 24)
        steps: list[tuple[str, Graph]] = []
        passes.optimize(graph, lambda name, new: steps.append((name, new)))  # noqa: B023
        feeds, before = feeds_of(graph), str(graph)
        for name, new in steps:
            verify(new, ops.infer, name)
            if str(new) != before:
                agree(ops.run(new, feeds), graph, feeds)
            before = str(new)


def test_a_second_optimisation_changes_no_operator() -> None:
    """What the pipeline leaves it would leave again."""
    for seed in range(50_000, 50_060):
        once = passes.optimize(grown(seed, 1 + seed % 24))
        twice = passes.optimize(once)
        assert sorted(node.op for node in twice.operations) == sorted(node.op for node in once.operations), seed
