"""The timing cache: kept, refused elsewhere, never half-written."""

import json

import pytest

from redline.base.errors import BuildError
from redline.tune import TimingCache


def test_what_is_saved_is_found_again(tmp_path):
    path = tmp_path / "deep" / "timings.json"
    cache = TimingCache.open(path, "cpu A")
    cache.record("matmul 1", "tile 6", 1.5e-6)
    cache.save()
    assert TimingCache.open(path, "cpu A").seconds("matmul 1", "tile 6") == 1.5e-6
    assert TimingCache.open(path, "cpu A").seconds("matmul 1", "tile 8") is None
    assert list(path.parent.iterdir()) == [path]


def test_another_processor_is_refused_with_both_names(tmp_path):
    path = tmp_path / "timings.json"
    TimingCache.open(path, "cpu A").save()
    with pytest.raises(BuildError, match=r"measured on cpu A; this machine is cpu B; .*--timing-cache"):
        TimingCache.open(path, "cpu B")


ENTRIES = ("3", '{"a": {"b": "x"}}', '{"a": {"b": NaN}}', '{"a": {"b": -1.0}}')  # none of them is a table of times
TEXTS = ["", "{", "[]", "null", "{}", "[" * 100000, *(f'{{"format": 1, "machine": "cpu", "entries": {e}}}' for e in ENTRIES)]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "timings.json"
    path.write_text(text)
    with pytest.raises(BuildError, match="it is no timing cache"):
        TimingCache.open(path, "cpu")


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "timings.json"
    path.write_text(json.dumps({"format": 9, "machine": "cpu", "entries": {}}))
    with pytest.raises(BuildError, match="its format is 9; this version reads 1"):
        TimingCache.open(path, "cpu")


def test_builds_side_by_side_keep_each_others_times(tmp_path):
    path = tmp_path / "timings.json"
    ours, theirs = TimingCache.open(path, "cpu"), TimingCache.open(path, "cpu")
    theirs.record("conv", "fast", 1.0)
    theirs.save()
    ours.record("conv", "fast", 2.0)
    ours.record("matmul", "tall", 3.0)
    ours.save()
    assert TimingCache.open(path, "cpu").entries == {"conv": {"fast": 1.0}, "matmul": {"tall": 3.0}}
    assert ours.seconds("conv", "fast") == 1.0
