"""Damaged models in a process of limited memory, under a clock: refused or right, never a crash, a hang or a bug."""

from pathlib import Path

import pytest

from tests.builder.processes import finish, start


@pytest.mark.parametrize(("first", "count"), [(0, 60), pytest.param(1000, 2000, marks=pytest.mark.slow)])
def test_damaged_models_are_refused_or_right(tmp_path: Path, first: int, count: int) -> None:
    process = start(["-m", "tests.builder.fuzz_models", str(first), str(count)], tmp_path)
    status, output = finish(process, seconds=120 + count)
    outcomes = dict(line.split(" ", 1) for line in output.splitlines())
    assert (status, len(outcomes)) == (0, count), f"it ended with {status} at model {output[-200:]!r}"
    assert [f"{seed}: {text}" for seed, text in outcomes.items() if text.startswith("BUG")] == []
    assert list(outcomes.values()).count("same") > count // 10
