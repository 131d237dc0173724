"""The user guide: its Python runs, and its verbs, options, variables and levels exist."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import redline
from redline.cli.app import VERBS, app

ROOT = Path(redline.__file__).parent.parent
GUIDE = (ROOT / "docs" / "guide.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
runner = CliRunner()


def test_the_python_of_the_guide_runs(picture, tmp_path, monkeypatch):
    picture.rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    assert len(PYTHON) == 2
    for code in PYTHON:
        exec(code, {})


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_section_and_its_options_exist(verb):
    section = GUIDE.split(f"\n### {verb}\n")[1].split("\n##")[0]
    plain = re.sub(r"[│╭╰─╮╯\n]", " ", runner.invoke(app, [verb, "--help"]).output)
    assert set(re.findall(r"--[a-z][a-z-]*", section)) <= set(re.findall(r"--[a-z][a-z-]*", plain))


def test_the_table_of_python_calls_names_every_verb():
    assert re.findall(r"^\| ([\w-]+) \| `redline", GUIDE, re.MULTILINE) == list(VERBS)
    for module, name in re.findall(r"`(redline\.cli\.\w+)\.(\w+)\(", GUIDE):
        assert hasattr(__import__(module, fromlist=[name]), name)


def test_the_guide_names_the_variables_that_are_read():
    read = set(re.findall(r"REDLINE_[A-Z_]+", (ROOT / "redline" / "base" / "env.py").read_text()))
    assert set(re.findall(r"REDLINE_[A-Z_]+", GUIDE)) == read


def test_the_guide_names_the_debug_levels_that_are_used():
    sources = "".join(path.read_text() for path in (ROOT / "redline").rglob("*.py"))
    levels = re.findall(r"^\| (\d) \| ", GUIDE.split("`REDLINE_DEBUG` levels")[1].split("##")[0], re.MULTILINE)
    assert set(levels) == set(re.findall(r"log\.debug\(\s*(\d)", sources))
