"""A build that is killed at any moment: the engine that was there stays, and every cache can be read and used on."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

import redline
from redline.tune import TimingCache
from tests.builder import bundle
from tests.builder.bundle import floats, one, weights
from tests.builder.processes import environment, finish, start

NETWORK = bundle.model([one("a", "MatMul", floats(16, 64), weights(64, 48)), one("b", "Softmax", floats(16, 100))])
FEEDS = {"a/x0": floats(16, 64), "b/x0": floats(16, 100)}

# Builds argv[1] and dies without a word at the n-th call of a function, or of the progress report for a stage.
PROGRAM = """
import os, signal, sys
import redline
from redline.builder import weights
from redline.codegen.c import compile as c_compile
from redline.tune import search
model, output, cache, moment, number = sys.argv[1:]
left = [int(number)]
def die_at(name):
    if name == moment:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
def dying(name, function):
    def wrapped(*args, **options):
        die_at(name)
        return function(*args, **options)
    return wrapped
search.BATCH = 1
os.replace = dying("replace", os.replace)
def pieces(self, whole=weights.Weights.pieces):
    for piece in whole(self):
        yield piece
        die_at("weights")
weights.Weights.pieces = pieces
report = lambda stage, done, total: die_at(stage)
redline.build(model, output=output, opt_level=1, timing_cache=cache, progress=report)
print("built")
"""
MOMENTS = [
    ("optimise", 1), ("replace", 1), ("compile", 2), ("replace", 4), ("time", 1), ("time", 2), ("link", 1), ("weights", 1),
    ("replace", 1),
]  # fmt: skip
# The first replace is of an object, the last one, when all is compiled and timed, that of the engine.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(NETWORK, tmp_path / "network.onnx")
    return tmp_path


def begin(folder: Path, moment: str, number: int) -> subprocess.Popen[str]:
    return start(["-c", PROGRAM, "network.onnx", "out.engine", "timings.json", moment, str(number)], folder)


def check_what_is_left(folder: Path, before: bytes) -> None:
    """The engine is the one of before and runs; the times can be read."""
    assert (folder / "out.engine").read_bytes() == before
    if (folder / "timings.json").exists():
        times = folder / "timings.json"
        TimingCache.open(times, json.loads(times.read_text())["machine"])


def test_a_killed_build_leaves_everything_usable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at one moment after the other, with the same caches all the way; the last build is left alone."""
    redline.build(NETWORK, output=folder / "out.engine", opt_level=0)
    before = (folder / "out.engine").read_bytes()
    for moment, number in MOMENTS:
        assert finish(begin(folder, moment, number), seconds=300) == (-9, ""), f"it was not killed at {moment} {number}"
        check_what_is_left(folder, before)
    assert finish(begin(folder, "never", 1), seconds=300) == (0, "built\n")
    found = redline.load(folder / "out.engine").run(FEEDS)
    np.testing.assert_allclose(found["b/y"].sum(1), 1, rtol=1e-5)
    times = (folder / "timings.json").read_bytes()
    written = (folder / "out.engine").read_bytes()
    monkeypatch.setenv("REDLINE_CACHE_DIR", environment(folder)["REDLINE_CACHE_DIR"])
    redline.build(NETWORK, output=folder / "again.engine", opt_level=1, timing_cache=folder / "timings.json")
    assert (folder / "timings.json").read_bytes() == times, "a time was lost"
    assert (folder / "again.engine").read_bytes() == written


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", range(100, 3000, 150))
def test_a_build_killed_after_some_time(folder: Path, milliseconds: int) -> None:
    redline.build(NETWORK, output=folder / "out.engine", opt_level=0)
    before = (folder / "out.engine").read_bytes()
    process = begin(folder, "never", 1)
    try:
        process.communicate(timeout=milliseconds / 1000)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        left = (folder / "out.engine").read_bytes()
        if left != before:  # killed between the rename and its end: the whole new engine, of opt_level 1
            new = redline.load(folder / "out.engine", preload=True, verify="full")
            assert new.report["opt_level"] == 1
            before = left
        check_what_is_left(folder, before)
    redline.load(folder / "out.engine").run(FEEDS)
