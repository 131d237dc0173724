"""The verb run: inputs from files or random, statistics of the outputs, files written."""

import numpy as np
import pytest
from typer.testing import CliRunner

from redline.cli import run
from redline.cli.app import app

runner = CliRunner()


@pytest.fixture
def engine(monkeypatch, fake_engine):
    made = fake_engine()
    monkeypatch.setattr(run, "load", lambda path: made)
    return made


def test_random_inputs_are_announced_and_repeatable(engine):
    result = runner.invoke(app, ["run", "small.engine", "--seed", "7"])
    assert result.exit_code == 0
    assert result.stderr.startswith("random (seed 7): x; floats normal")
    again = runner.invoke(app, ["run", "small.engine", "--seed", "7"])
    other = runner.invoke(app, ["run", "small.engine", "--seed", "8"])
    assert result.stdout == again.stdout != other.stdout


@pytest.mark.parametrize("arguments", [["x.npy"], ["--input", "x=x.npy"], ["-i", "x.npy"]])
def test_inputs_from_files(engine, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((2, 4), np.float32))
    result = runner.invoke(app, ["run", "small.engine", *arguments])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1].split() == ["y", "float32", "2x3", "1", "1", "1"]


def test_outputs_are_saved(engine, tmp_path):
    folder = tmp_path / "answers"
    result = runner.invoke(app, ["run", "small.engine", "--output", str(folder)])
    assert f"wrote {folder}/y.npy" in result.stdout
    assert np.array_equal(np.load(folder / "y.npy"), engine.run(engine.calls[0])["y"])


def test_an_output_without_elements(engine, monkeypatch):
    monkeypatch.setattr(engine, "run", lambda inputs: {"y": np.zeros((0, 3), np.float32)})
    result = runner.invoke(app, ["run", "small.engine"])
    assert result.stdout.splitlines()[-1].split() == ["y", "float32", "0x3", "-", "-", "-"]


def test_an_unknown_input(engine):
    result = runner.invoke(app, ["run", "small.engine", "--input", "z=z.npy"])
    assert (result.exit_code, result.stderr) == (2, "[--input] there is no input 'z'; known: x\n")


def test_no_engine(perceptron, tmp_path):
    result = runner.invoke(app, ["run", str(perceptron)])
    assert (result.exit_code, "it is not a Redline engine" in result.stderr) == (2, True)
    result = runner.invoke(app, ["run", str(tmp_path / "none.engine")])
    assert (result.exit_code, "it cannot be read" in result.stderr) == (2, True)
