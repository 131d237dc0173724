"""Random graphs compiled and run: what the simulated machine of tests/lower cannot see is in the generated code."""

import pytest

from tests.builder import bundle
from tests.builder.export import case_of
from tests.builder.random_graphs import feeds_of, grown
from tests.lower.test_random_programs import agree

PER_ENGINE, NODES = 10, 16


def check(first_seed: int, target: str, num_threads: int) -> None:
    """``PER_ENGINE`` graphs in one engine, each against the interpreter."""
    graphs = {f"g{seed}": grown(seed, NODES) for seed in range(first_seed, first_seed + PER_ENGINE)}
    feeds = {name: feeds_of(graph, first_seed) for name, graph in graphs.items()}
    cases = [case_of(name, graph, feeds[name]) for name, graph in graphs.items()]
    found = bundle.answers(cases, target=target, num_threads=num_threads)
    for name, graph in graphs.items():
        agree(found[name], graph, feeds[name])


@pytest.mark.parametrize(("first_seed", "target"), [(10_000, "cpu"), (11_000, "cpu:avx2"), (12_000, "cpu:generic")])
def test_random_engines_mean_what_their_graphs_mean(first_seed: int, target: str) -> None:
    check(first_seed, target, 2)


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(20_000, 22_000, PER_ENGINE))
def test_many_random_engines_mean_what_their_graphs_mean(first_seed: int) -> None:
    check(first_seed, ("cpu", "cpu", "cpu:avx2", "cpu:generic")[first_seed // PER_ENGINE % 4], 1 + first_seed // PER_ENGINE % 3)
