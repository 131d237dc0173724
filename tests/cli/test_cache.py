"""The verb cache: lists and clears Redline's own files, and no others."""

from typer.testing import CliRunner

from redline.cli.app import app

runner = CliRunner()


def test_a_cache_is_listed_and_cleared(tmp_path):
    for name, size in (("objects/a.o", 2048), ("objects/deep/b.o", 1024), ("timings/t.json", 10), ("mine/letter.txt", 1)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    result = runner.invoke(app, ["cache"], env={"REDLINE_CACHE_DIR": str(tmp_path)})
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["objects", "2", "3.0", "KiB"] in rows
    assert ["timings", "1", "10", "B"] in rows
    assert ["zig", "0", "0", "B"] in rows
    result = runner.invoke(app, ["cache", "--clear"], env={"REDLINE_CACHE_DIR": str(tmp_path)})
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "cleared")
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["letter.txt"]


def test_no_cache_yet(tmp_path):
    result = runner.invoke(app, ["cache", "--clear"], env={"REDLINE_CACHE_DIR": str(tmp_path / "none")})
    assert result.exit_code == 0
    assert not (tmp_path / "none").exists()
