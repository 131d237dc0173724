"""The doctor: what it says of a whole machine, and the command at the end of each line that fails."""

import pytest
from typer.testing import CliRunner

from redline.cli import diagnosis, doctor
from redline.cli.app import app
from redline.cli.diagnosis import Finding

runner = CliRunner()


def test_a_whole_machine_passes():
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "compiled, linked, loaded and called" in result.output
    assert "FAIL" not in result.output


def test_a_wrong_compiler_fails_with_the_repair():
    result = runner.invoke(app, ["doctor"], env={"REDLINE_CC": "no-such-compiler"})
    assert result.exit_code == 1
    lines = {line.split()[1]: line for line in result.output.splitlines()[1:]}
    assert lines["compiler"].startswith("FAIL ")
    assert lines["compiler"].endswith("there is no program 'no-such-compiler'; repair: unset REDLINE_CC")
    assert lines["test"].endswith("repair: redline doctor")


def test_a_compiler_that_fails_is_quoted(tmp_path):
    fake = tmp_path / "cc"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "fake 1.0" && exit 0\necho "no space left" >&2; exit 1\n')
    fake.chmod(0o755)
    result = runner.invoke(app, ["doctor"], env={"REDLINE_CC": str(fake)})
    assert result.exit_code == 1
    assert "no space left; repair: pip install" in result.output


def test_a_cache_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").write_text("")
    result = runner.invoke(app, ["doctor"], env={"REDLINE_CACHE_DIR": str(tmp_path / "file")})
    assert result.exit_code == 1
    assert "repair: export REDLINE_CACHE_DIR=" in result.output


def test_too_many_threads_are_a_note_only():
    result = runner.invoke(app, ["doctor"], env={"REDLINE_NUM_THREADS": "1000"})
    assert result.exit_code == 0
    assert "repair: unset REDLINE_NUM_THREADS" in result.output


@pytest.mark.parametrize(("required", "exit_code"), [(True, 1), (False, 0)])
def test_only_required_findings_decide(monkeypatch, required, exit_code):
    monkeypatch.setattr(doctor, "diagnose", lambda: [Finding("thing", "broken", "mend it", required)])
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == exit_code
    assert result.output.splitlines()[-1].endswith("broken; repair: mend it")


def test_a_package_that_is_not_there():
    finding = diagnosis.package("no-such-package", "build", True)
    assert (finding.ok, finding.remedy) == (False, "pip install 'redline[build]'")
