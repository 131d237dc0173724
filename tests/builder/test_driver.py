"""The driver: what it refuses, what it repeats byte for byte, what memory it counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import redline
from redline.base import cpu
from redline.base.errors import BuildError, RedlineError
from redline.engine import open_engine
from tests import skeletons
from tests.builder import bundle
from tests.builder.bundle import floats, one, weights

ROOT = Path(__file__).resolve().parents[2]
NETWORK = bundle.model(
    [
        one("conv", "Conv", floats(1, 8, 10, 10), weights(16, 8, 3, 3), weights(16)),
        one("product", "MatMul", floats(16, 64), weights(64, 48)),
        one("softmax", "Softmax", floats(16, 100)),
        one("sum", "ReduceSum", floats(16, 30, 20)),
    ]
)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    onnx.save(NETWORK, tmp_path / "network.onnx")
    return tmp_path / "network.onnx"


def test_the_same_timing_cache_gives_the_same_bytes(network: Path, tmp_path: Path) -> None:
    """In this process and in two others with other hash seeds, whichever file the model comes from."""
    cache = tmp_path / "timings.json"
    redline.build(network, output=tmp_path / "a.engine", opt_level=1, timing_cache=cache)
    first, times = (tmp_path / "a.engine").read_bytes(), cache.read_bytes()
    redline.build(NETWORK, output=tmp_path / "b.engine", opt_level=1, timing_cache=cache)
    assert (tmp_path / "b.engine").read_bytes() == first
    for seed in ("1", "2"):
        code = "import sys, redline; redline.build(sys.argv[1], output=sys.argv[2], opt_level=1, timing_cache=sys.argv[3])"
        command = [sys.executable, "-c", code, str(network), str(tmp_path / "c.engine"), str(cache)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed})
        assert (tmp_path / "c.engine").read_bytes() == first
    assert cache.read_bytes() == times


def test_opt_level_0_gives_the_same_bytes_without_a_cache(tmp_path: Path) -> None:
    for name, cache in (("a", tmp_path / "one"), ("b", tmp_path / "two")):
        redline.build(
            skeletons.load("digits"), shapes={"image": (1, 1, 8, 8)}, output=tmp_path / name, opt_level=0, timing_cache=cache
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_timing_cache_of_another_machine_is_refused(network: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timings.json"
    redline.build(network, output=tmp_path / "a.engine", opt_level=1, timing_cache=cache)
    text = json.loads(cache.read_text())
    cache.write_text(json.dumps({**text, "machine": "Pentium avx2 2 threads, gcc 4"}))
    with pytest.raises(
        BuildError, match=r"it was measured on Pentium avx2 2 threads, gcc 4; this machine is .* --timing-cache"
    ):
        redline.build(network, output=tmp_path / "b.engine", opt_level=1, timing_cache=cache)
    assert not (tmp_path / "b.engine").exists()


def test_times_of_another_number_of_threads_are_refused(network: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timings.json"
    redline.build(network, output=tmp_path / "a.engine", opt_level=1, timing_cache=cache, num_threads=1)
    with pytest.raises(BuildError, match="1 threads"):
        redline.build(network, output=tmp_path / "a.engine", opt_level=1, timing_cache=cache, num_threads=2)


def test_memory_is_limited_to_the_byte(network: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    header = redline.build(network, output=path, opt_level=0, num_threads=2).header
    needed = open_engine(path).blob("weights").nbytes + header.arena_bytes + header.scratch_bytes * 2
    redline.build(network, output=path, opt_level=0, num_threads=2, memory_limit=needed)
    path.unlink()
    with pytest.raises(
        BuildError, match=r"\[--memory-limit\] the engine needs .* MiB \(weights .*, arena .*\); allowed: .*; raise"
    ):
        redline.build(network, output=path, opt_level=0, num_threads=2, memory_limit=needed - 1)
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp23"}, r"\[--precision\] there is no precision 'fp23'; did you mean 'fp32'"),
        ({"precision": "int9"}, r"\[--precision\] there is no precision 'int9'; "),
        (
            {"precision": "bf16x3", "target": "cpu:avx2"},
            r"\[--precision\] bf16x3 on avx2, which has no matrix unit \(AMX\); .*bf16$",
        ),
        ({"opt_level": 6}, r"\[--opt-level\] 6 is out of range; allowed: 0 to 5"),
        ({"opt_level": -1}, r"\[--opt-level\] -1 is out of range"),
        ({"target": "cpu:avx51"}, "there is no target 'avx51'; did you mean 'avx512'"),
        ({"target": "avx512+vnnl"}, "avx512 has no option 'vnnl'; did you mean 'vnni'"),
        ({"target": "rocm"}, "there is no target 'rocm'"),
        ({"shapes": {"nothing": (1,)}}, "nothing"),
        ({"shapes": {"softmax/x0": (16, 101)}}, "softmax/x0"),
        ({"freeze": {"nothing": np.zeros(1)}}, "nothing"),
        ({"freeze": {"softmax/x0": np.zeros((16, 101), np.float32)}}, "softmax/x0"),
        ({"num_threads": -1}, r"\[--threads\] -1 is out of range"),
        ({"memory_limit": 0}, r"\[--memory-limit\]"),
        ({"output": "/nowhere/at/all.engine"}, r"\[--output\] there is no folder '/nowhere/at'; make it"),
    ],
    ids=str,
)
def test_wrong_options(network: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(RedlineError, match=message):
        redline.build(network, **{"opt_level": 0} | options)  # type: ignore[arg-type]
    assert not network.with_suffix(".engine").exists()


@pytest.mark.skipif("amx_bf16" not in cpu.features(), reason="needs a processor with a matrix unit (AMX)")
@pytest.mark.parametrize(("precision", "limit"), [("bf16x3", 2e-5), ("bf16x6", 5e-7)])
def test_split_factors_are_near_float32_and_say_how_near(network: Path, precision: str, limit: float) -> None:
    exact = redline.build(network, output=network.with_suffix(".exact"), opt_level=0)
    split = redline.build(network, precision=precision, opt_level=0)
    dots = {kernel.schedule.partition("dot='")[2].partition("'")[0] for kernel in split.header.kernels}
    assert f"amx-{precision}" in dots
    feeds = {io.name: np.random.default_rng(1).standard_normal(io.shape).astype(io.dtype) for io in exact.header.inputs}
    want, got = exact.run(feeds), split.run(feeds)
    worst = max(float(np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name])) for name in want)
    assert 0 < worst < limit
    assert 0 < split.report["error"]["relative_l2"] < limit


def test_an_engine_takes_the_place_of_the_old_one(network: Path) -> None:
    path = network.with_suffix(".engine")
    old = redline.build(network, opt_level=0)
    before = path.read_bytes()
    redline.build(skeletons.load("digits"), shapes={"image": (1, 1, 8, 8)}, output=path, opt_level=0)
    assert path.read_bytes() != before
    feeds = {io.name: np.ones(io.shape, io.dtype) for io in old.header.inputs}
    assert np.isfinite(old.run(feeds)["softmax/y"]).all()  # the loaded one lives on


def test_an_engine_without_a_place_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = redline.build(NETWORK, opt_level=0)
    assert list(tmp_path.iterdir()) == []
    assert set(engine.run({io.name: np.ones(io.shape, io.dtype) for io in engine.header.inputs})) == {
        f"{name}/y" for name in ("conv", "product", "softmax", "sum")
    }


def test_the_report_says_what_was_built(network: Path) -> None:
    report = redline.build(network, opt_level=0).header.report
    assert (report["nodes"], report["precision"], report["opt_level"]) == (4, "fp32", 0)


def test_stages_are_reported_in_order(network: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    redline.build(
        network, opt_level=1, timing_cache=tmp_path / "t", progress=lambda stage, done, total: seen.append(stage)
    )  # fmt: skip
    assert list(dict.fromkeys(seen)) == ["read", "optimise", "compile", "time", "link", "write"]
