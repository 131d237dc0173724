"""Random graphs through passes and lowering: the program means what the graph means, and the checker accepts its plan."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from redline import ops, passes
from redline.base.dtypes import DType, bfloat16, float16, from_numpy
from redline.cli.tolerance import TABLE
from redline.ir import Graph
from redline.lower import fusion, lower, plan
from redline.passes import decompose, shape_rows
from tests.builder.random_graphs import feeds_of, graphs, grown
from tests.lower import machine

COUNTS = [150, pytest.param(20_000, marks=pytest.mark.slow)]
UNITS = 2000  # units in the last place of the largest number met on the way


def reference(graph: Graph, feeds: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """The outputs, and the largest magnitude that any value on the way has."""
    largest = [1.0]

    def observe(node: object, results: tuple[np.ndarray, ...]) -> None:
        largest.extend(float(np.abs(a.astype(np.float64)).max(initial=0)) for a in results if a.dtype.kind != "b")

    return ops.run(graph, feeds, observe), max(largest)


def agree(actual: dict[str, np.ndarray], graph: Graph, feeds: dict[str, np.ndarray], eps: float | None = None) -> None:
    expected, scale = reference(graph, feeds)
    assert list(actual) == list(expected)
    for name, wanted in expected.items():
        seen = actual[name]
        assert (seen.dtype, seen.shape) == (wanted.dtype, wanted.shape), name
        if not from_numpy(wanted.dtype).is_float:
            np.testing.assert_array_equal(seen, wanted, err_msg=name)
            continue
        unit = eps or UNITS * float(np.finfo(wanted.dtype).eps)
        worst = float(np.abs(seen.astype(np.float64) - wanted).max(initial=0))
        assert worst <= unit * scale, f"{name} is off by {worst} at a scale of {scale}"


def random_graphs(count: int) -> Callable[[Callable[[Graph], None]], None]:
    """Calls a test with ``count`` graphs, the same ones each time."""
    options = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "database": None}
    return lambda test: settings(max_examples=count, **options)(given(graphs())(test))()


@pytest.mark.parametrize("count", COUNTS)
def test_the_program_means_what_the_graph_means(count: int) -> None:
    @random_graphs(count)
    def check(graph: Graph) -> None:
        feeds = feeds_of(graph)
        program = lower(passes.optimize(graph))
        machine.assemble(program)
        for backwards in (False, True):
            agree(machine.run(program, feeds, backwards), graph, feeds)


@pytest.mark.parametrize("count", COUNTS)
def test_lowering_alone_keeps_the_meaning(count: int) -> None:
    """Without the passes, which leave lowering less to fuse and to place."""

    @random_graphs(count)
    def check(graph: Graph) -> None:
        feeds = feeds_of(graph)
        program = lower(decompose.run(shape_rows.run(graph), decompose.KERNELS))
        machine.assemble(program)
        agree(machine.run(program, feeds), graph, feeds)


@pytest.mark.parametrize("storage", [bfloat16, float16], ids=str)
@pytest.mark.parametrize("count", COUNTS)
def test_half_precision_is_near(count: int, storage: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values between kernels in 16 bits: as near as the tolerance of that type, and the outputs keep their types."""
    monkeypatch.setattr(fusion, "SMALL_ELEMENTS", 0)

    @random_graphs(count // 3)
    def check(graph: Graph) -> None:
        feeds = feeds_of(graph)
        program = lower(passes.optimize(graph), storage)
        machine.assemble(program)
        agree(machine.run(program, feeds), graph, feeds, eps=TABLE[storage].relative_max)


def test_the_machine_sees_a_wrong_plan() -> None:
    """One phase for everything, or one place for everything, is noticed: what the tests above would let pass otherwise."""
    graph = grown(seed=2, num_nodes=24)
    feeds, program = feeds_of(graph), lower(passes.optimize(graph))
    right = plan(program.steps)
    agree(machine.Machine(program, right, feeds).run(backwards=True), graph, feeds)
    for wrong in (replace(right, phases=(0,) * len(right.phases)), replace(right, offsets=dict.fromkeys(right.offsets, 0))):
        with pytest.raises(AssertionError):
            agree(machine.Machine(program, wrong, feeds).run(backwards=True), graph, feeds)
