"""The verb check: everything that does not build, in one table."""

from typer.testing import CliRunner

from redline.cli import check
from redline.cli.app import app

runner = CliRunner()


def test_a_model_that_builds(perceptron):
    result = runner.invoke(app, ["check", str(perceptron)])
    assert (result.exit_code, result.output) == (0, "every node builds\n")


def test_all_unsupported_nodes_at_once(unbuildable):
    result = runner.invoke(app, ["check", str(unbuildable)])
    assert result.exit_code == 2
    title, headings, first, *rest = (line.rstrip() for line in result.stdout.splitlines())
    assert title == "nodes that do not build: 6"
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


def test_open_dimensions_do_not_build(lookup):
    result = runner.invoke(app, ["check", str(lookup)])
    assert result.exit_code == 2
    assert "inputs with open dimensions: ids length, mask length; an engine has fixed shapes; fix them" in result.stderr


def test_nodes_without_a_kernel_are_named_by_the_models_nodes(perceptron, monkeypatch):
    monkeypatch.setattr(check.lower, "unsupported", lambda graph: list(graph.operations)[-1:])
    (found,) = check.find_unsupported(perceptron, {})
    assert (found.node, found.op, found.reason) == ("relu", "Relu", "no kernel computes it")
