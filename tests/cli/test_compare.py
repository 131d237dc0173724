"""The verb compare: both witnesses, errors planted in the engine, inputs that only the model takes."""

import numpy as np
import pytest
from typer.testing import CliRunner

from redline.base.errors import RedlineError
from redline.cli import compare, witness
from redline.cli.app import app

runner = CliRunner()


@pytest.fixture
def install(monkeypatch, fake_engine):
    """Lets the verb load a fake engine whose answers are off by ``error`` in one element."""

    def put(error):
        made = fake_engine(error)
        monkeypatch.setattr(compare, "load", lambda path: made)
        return made

    return put


@pytest.mark.parametrize("option", [[], ["--reference"]])
def test_an_engine_that_is_right(install, perceptron, option):
    install(0.0)
    result = runner.invoke(app, ["compare", str(perceptron), "small.engine", *option])
    assert result.exit_code == 0, result.output
    verdict, summary = result.stdout.splitlines()
    assert verdict.startswith("same    y: relative L2 error ")
    name = "the interpreter" if option else "ONNX Runtime"
    assert summary == f"0 of 1 outputs differ from {name}, 1 sample"


@pytest.mark.parametrize("option", [[], ["--reference"]])
@pytest.mark.parametrize("error", [0.1, np.nan, np.inf])
def test_an_error_planted_in_the_engine(install, perceptron, option, error):
    install(error)
    result = runner.invoke(app, ["compare", str(perceptron), "small.engine", *option])
    assert result.exit_code == 1
    assert result.stdout.startswith("DIFFER  y: ")
    assert " at [1, 2] (expected " in result.stdout
    assert "1 of 1 outputs differ" in result.stdout


def test_samples_differ_and_the_worst_is_reported(install, perceptron):
    engine = install(0.0)
    result = runner.invoke(app, ["compare", str(perceptron), "small.engine", "--samples", "3"])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "0 of 1 outputs differ from ONNX Runtime, 3 samples")
    first, second, third = (call["x"] for call in engine.calls)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_given_inputs_are_used(install, perceptron, tmp_path):
    engine = install(0.0)
    np.save(tmp_path / "x.npy", np.full((2, 4), 5, np.float32))
    runner.invoke(app, ["compare", str(perceptron), "small.engine", "--input", f"x={tmp_path}/x.npy"])
    assert (engine.calls[0]["x"] == 5).all()


def test_a_frozen_input_must_be_given(fake_engine, lookup):
    engine = fake_engine()
    message = "the model takes 'ids', which the engine has frozen; give what it was frozen to: --input ids=FILE.npy or a number"
    with pytest.raises(RedlineError, match=message):
        compare.compare_engine(engine, witness.onnx_runtime(lookup), {}, engine.header.inputs)


def test_a_model_that_the_witness_refuses(install, tmp_path):
    install(0.0)
    result = runner.invoke(app, ["compare", str(tmp_path / "none.onnx"), "small.engine"])
    assert result.exit_code == 2
    assert "ONNX Runtime refuses it" in result.stderr


def test_witnesses_agree(lookup):
    ids, mask = np.array([1, 0, 5]), np.array([1, 1, 0])
    for against in (witness.onnx_runtime(lookup), witness.interpreter(lookup, {"ids": (3,), "mask": (3,)})):
        answers = against.run({"ids": ids, "mask": mask})
        assert answers["y"].tolist() == [[2, 3], [0, 1], [0, 0]]
        assert answers["count"] == 2
