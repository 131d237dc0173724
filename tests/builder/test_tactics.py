"""Every tactic that a build might choose is right: engines of tactics drawn at random, and engines made by gcc."""

import random
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

from redline.tune import TimingCache, search
from redline.tune.harness import Candidate
from tests.builder import bundle, cases_moves, cases_products, cases_rows, cases_windows
from tests.builder.bundle import Case

GROUPS: dict[str, list[Case]] = {
    "convolutions": cases_windows.CONVOLUTIONS,
    "transposed": cases_windows.TRANSPOSED,
    "pools": cases_windows.POOLS,
    "products": cases_products.PRODUCTS,
    "attention": cases_products.ATTENTION,
    "rows": cases_rows.ROWS,
    "reductions": cases_rows.REDUCTIONS,
    "moves": cases_moves.MOVES + cases_moves.SCATTERS + cases_moves.RESIZES,
}
QUICK = ("convolutions", "products", "attention")
TARGETS = ("cpu", "cpu:avx2", "cpu:generic")


def check(group: str, **options: Any) -> None:
    found = bundle.answers(GROUPS[group], **options)
    for case in GROUPS[group]:
        bundle.check(case, found[case.name])


def check_random_tactics(group: str, seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, **options: Any) -> None:
    """Times are drawn instead of measured, over all candidates there are."""
    rng = random.Random(seed)

    def draw(missing: Sequence[Candidate], target: object, toolchain: object, cache: TimingCache, progress: object) -> None:
        for candidate in missing:
            cache.record(candidate.problem_key, candidate.schedule, rng.random())

    monkeypatch.setattr(search, "_measure", draw)
    check(group, opt_level=5, timing_cache=tmp_path / "drawn.json", **options)


@pytest.mark.parametrize("group", QUICK)
def test_random_tactics_are_right(group: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    check_random_tactics(group, 0, monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("group", list(GROUPS))
def test_many_random_tactics_are_right(
    group: str, seed: int, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    check_random_tactics(group, seed, monkeypatch, tmp_path, target=target, num_threads=1 + seed % 3)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS[1:])
@pytest.mark.parametrize("group", list(GROUPS))
def test_first_guesses_for_lesser_processors_are_right(group: str, target: str) -> None:
    check(group, target=target)


needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


@needs_gcc
def test_engines_made_by_gcc_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case of each kind."""
    monkeypatch.setenv("REDLINE_CC", "gcc")
    picked = [
        bundle.Case(**{**vars(case), "name": f"{group}_{case.name}"}) for group, cases in GROUPS.items() for case in cases[:2]
    ]
    found = bundle.answers(picked)
    for case in picked:
        bundle.check(case, found[case.name])


@needs_gcc
@pytest.mark.slow
@pytest.mark.parametrize("group", list(GROUPS))
def test_every_operator_made_by_gcc_is_right(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDLINE_CC", "gcc")
    check(group)
