"""The command itself: help, version, unknown verbs, user errors, missing extras and bugs."""

import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from redline.base.errors import EngineError, RedlineError
from redline.cli import extras
from redline.cli.app import VERBS, app

runner = CliRunner()


@pytest.fixture
def verb(monkeypatch):
    """Puts a function in the place of the verb ``check``."""

    def install(command):
        monkeypatch.setattr(extras.importlib, "import_module", lambda name: SimpleNamespace(command=command))

    return install


def raising(error: BaseException):
    def command() -> None:
        """Fails."""
        raise error

    return command


def test_version_and_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "redline", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"redline {metadata.version('redline')}\n")


def test_help_names_every_verb():
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(f" {name} " in result.output for name in VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_a_verbs_docstring_is_its_help(name):
    result = runner.invoke(app, [name, "--help"])
    first_words = extras.load(f"redline.cli.{name.replace('-', '_')}", name).command.__doc__.split()[:4]
    assert " ".join(first_words) in result.output


def test_an_unknown_verb_is_a_usage_error():
    result = runner.invoke(app, ["trian"])
    assert result.exit_code == 2
    assert "No such command 'trian'" in result.stderr


def test_a_user_error_is_one_sentence_on_stderr(verb):
    verb(raising(EngineError("a.engine", "made for avx512", "this machine has avx2", "build it here")))
    result = runner.invoke(app, ["check"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "[a.engine] made for avx512; this machine has avx2; build it here\n"


def test_the_error_chooses_the_exit_code(verb):
    class Special(RedlineError):
        exit_code = 7

    verb(raising(Special("here", "no")))
    assert runner.invoke(app, ["check"]).exit_code == 7


def test_a_file_that_cannot_be_opened_is_a_user_error(verb):
    verb(raising(PermissionError(13, "Permission denied", "out.engine")))
    result = runner.invoke(app, ["check"])
    assert (result.exit_code, result.stderr) == (2, "[out.engine] Permission denied\n")


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError("no file is named"), ModuleNotFoundError("x", name="x")])
def test_a_bug_keeps_its_traceback(verb, error):
    verb(raising(error))
    result = runner.invoke(app, ["check"])
    assert result.exit_code == 1
    assert result.exception is error


def test_markup_in_an_error_is_printed_as_it_is(verb):
    verb(raising(RedlineError("node [bold]x[/bold]", "seen")))
    assert runner.invoke(app, ["check"]).stderr == "[node [bold]x[/bold]] seen\n"


def test_a_missing_extra_names_its_install_command(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(extras.importlib, "import_module", import_module)
    result = runner.invoke(app, ["check", "model.onnx", "--shapes", "x:1"])
    assert result.exit_code == 2
    assert result.stderr == "[check] the package onnx is not installed; pip install 'redline[build]'\n"
    assert "redline[build]" in runner.invoke(app, ["--help"]).output
