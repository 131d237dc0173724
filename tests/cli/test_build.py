"""The verb build, and the way of an engine through all verbs."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from redline import frontend
from redline.base.errors import BuildError, RedlineError
from redline.cli import build
from redline.cli.app import app
from redline.cli.build import parse_size

runner = CliRunner()
LOOKUP_SHAPES = ["--shapes", "ids:3", "--shapes", "mask:3"]


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("0", 0), ("512", 512), ("512B", 512), ("1.5KiB", 1536), ("2GiB", 2 << 30), ("2 GB", 2 * 10**9), ("3MB", 3 * 10**6)],
)
def test_sizes(text, num_bytes):
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "2TB", "1,5GiB", "2Ki", "2GiB2", "K"])
def test_texts_that_are_no_size(text):
    with pytest.raises(RedlineError, match=r"is no size; expected a number and one of B, KiB, MiB, GiB, KB, MB, GB"):
        parse_size(text)


@pytest.fixture
def asked(monkeypatch, header, tmp_path):
    """What the verb asks of the driver, which writes nothing but a file."""
    options = {}

    def record(model, *, progress, **given):
        options.update(given, model=model)
        given["output"].write_bytes(bytes(2048))
        for done in range(3):
            progress("compile", done, 2)
        progress("link", 0, 1)
        return type("Engine", (), {"header": header})

    monkeypatch.setattr(build, "build", record)
    return options


def test_every_option_reaches_the_driver(asked, tmp_path):
    np.save(tmp_path / "mask.npy", np.ones(3))
    words = f"build m.onnx -o {tmp_path}/e.engine --shapes ids:1x3 --shapes n:scalar --freeze mask={tmp_path}/mask.npy"
    words += f" --precision fp32 --opt-level 5 --timing-cache {tmp_path}/t --memory-limit 1KiB --target cpu:avx2 --threads 3"
    words += " --ragged --bucket one=ids:1x1 --bucket opt"
    assert runner.invoke(app, words.split()).exit_code == 0
    assert asked.pop("freeze")["mask"].tolist() == [1, 1, 1]
    assert {k: str(v) if k in ("model", "output", "timing_cache") else v for k, v in asked.items()} == {
        "model": "m.onnx", "output": f"{tmp_path}/e.engine", "shapes": [{"ids": (1, 3), "n": ()}],
        "buckets": {"one": {"ids": (1, 1)}, "opt": None}, "precision": "fp32",
        "opt_level": 5, "timing_cache": f"{tmp_path}/t", "memory_limit": 1024, "target": "cpu:avx2", "num_threads": 3,
        "ragged": True,
    }  # fmt: skip


def test_the_engine_lies_beside_the_model(asked, tmp_path):
    runner.invoke(app, ["build", str(tmp_path / "my.model.onnx")])
    assert asked["output"] == tmp_path / "my.model.engine"


def test_the_summary(asked, tmp_path):
    result = runner.invoke(app, ["build", str(tmp_path / "m.onnx")])
    assert result.stderr == ""
    first, second, *_ = result.stdout.splitlines()
    assert first.startswith(f"{tmp_path}/m.engine: 2.0 KiB, built in ")
    assert second == "3 nodes -> 2 kernels; weights 0 B, arena 64 B, for avx512 and 2 threads"
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["matmul", "1", "2.0", "us", "100%", "0.0", "0.1"] in rows
    assert "not timed, and not counted above: 1 (one tactic only, or opt-level 0)" in result.stdout


def test_an_interrupt_leaves_no_file(monkeypatch, tmp_path):
    def interrupted(model, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "build", interrupted)
    result = runner.invoke(app, ["build", str(tmp_path / "m.onnx")])
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "x:2xA"], "[--shapes] 'x:2xA' is no shape"),
        (["--precision", "fp23"], "did you mean 'fp32'?"),
        (["--target", "avx51"], "did you mean 'avx512'?"),
        (["--memory-limit", "1"], "[--memory-limit]"),
        (["--freeze", "y=none.npy"], "[--freeze] there is no file 'none.npy'"),
    ],
)
def test_wrong_options(perceptron, arguments, message):
    result = runner.invoke(app, ["build", str(perceptron), "--opt-level", "0", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not perceptron.with_suffix(".engine").exists()


def test_from_model_to_answers(perceptron, tmp_path):
    """Through every verb: check, build, inspect, run, compare, bench."""
    engine = perceptron.with_suffix(".engine")

    def call(*words):
        result = runner.invoke(app, list(map(str, words)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert call("check", perceptron) == "every node builds\n"
    assert "3 nodes -> " in call("build", perceptron, "--opt-level", 0)
    facts = json.loads(call("inspect", engine, "--json"))
    assert {node for kernel in facts["kernels"] for node in kernel["nodes"]} == {"dense", "bias", "relu"}
    call("run", engine, "--output", tmp_path)
    assert np.load(tmp_path / "y.npy").shape == (2, 3)
    assert "0 of 1 outputs differ" in call("compare", perceptron, engine)
    assert "0 of 1 outputs differ" in call("compare", perceptron, engine, "--reference", "--samples", 2)
    assert "throughput" in call("bench", engine, "--seconds", 0, "--warmup", 0, "--profile")


def test_shapes_and_frozen_inputs(lookup, tmp_path):
    """A frozen input is no input of the engine; comparing needs the array it was frozen to."""
    mask, engine = tmp_path / "mask.npy", lookup.with_suffix(".engine")
    np.save(mask, np.array([1, 0, 1]))
    result = runner.invoke(app, ["build", str(lookup), "--shapes", "ids:3", "--freeze", f"mask={mask}", "--opt-level", "0"])
    assert result.exit_code == 0, result.output
    facts = json.loads(runner.invoke(app, ["inspect", str(engine), "--json"]).stdout)
    assert [io["name"] for io in facts["inputs"]] == ["ids"]
    result = runner.invoke(app, ["compare", str(lookup), str(engine)])
    assert (result.exit_code, "which the engine has frozen" in result.stderr) == (2, True)
    result = runner.invoke(app, ["compare", str(lookup), str(engine), "--input", f"mask={mask}"])
    assert result.exit_code == 0, result.output


def test_the_driver_says_the_same_in_python(perceptron):
    with pytest.raises(BuildError, match="--opt-level"):
        build.build(perceptron, opt_level=6)
    assert frontend.unsupported(perceptron) == []
