"""The verb check: everything that does not build, in one table."""

from typer.testing import CliRunner

from redline.cli.app import app

runner = CliRunner()


def test_a_model_that_builds(perceptron):
    result = runner.invoke(app, ["check", str(perceptron)])
    assert (result.exit_code, result.output) == (0, "every node builds\n")


def test_all_unsupported_nodes_at_once(unbuildable):
    result = runner.invoke(app, ["check", str(unbuildable)])
    assert result.exit_code == 2
    title, headings, first, *rest = (line.rstrip() for line in result.stdout.splitlines())
    assert title.endswith("nodes do not build")
    assert headings.split() == ["count", "operator", "nodes", "why", "what", "to", "do"]
    assert first.startswith("4      RandomNormalLike  noise0, noise1, noise2 and 1 more")
    assert first.endswith("make the random tensor an input of the model")
    assert any("StringNormalizer" in line for line in rest)
    assert "Relu" not in result.stdout


def test_no_model(tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    result = runner.invoke(app, ["check", str(tmp_path / "text.onnx")])
    assert result.exit_code == 2
    assert "not an ONNX model" in result.stderr
    result = runner.invoke(app, ["check", str(tmp_path / "none.onnx")])
    assert result.exit_code == 2
    assert "there is no such file" in result.stderr


def test_shapes_that_do_not_fit(perceptron):
    result = runner.invoke(app, ["check", str(perceptron), "--shapes", "x:2x5"])
    assert result.exit_code == 2
    assert "input 'x' is 2x4 in the model, given 2x5" in result.stderr
