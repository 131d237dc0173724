"""The compiler is found in a fixed order, and its absence is told in a sentence."""

import subprocess

import pytest

from redline.base.errors import CompilerError
from redline.codegen.c import isa, toolchain


def program(path, prints):
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No compiler but those that the test puts into the folder."""
    monkeypatch.delenv("REDLINE_CC", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nonexistent")
    monkeypatch.setattr(toolchain, "_ziglang", lambda: None)
    monkeypatch.setattr(subprocess, "run", _with_shell(subprocess.run))
    return tmp_path


def _with_shell(run):
    return lambda command, **options: run(["/bin/sh", *command], **options)


def test_order_of_the_system_compilers(bare):
    program(bare / "cc", "cc (Debian) 12")
    assert toolchain.find().identity == "gcc cc (Debian) 12"
    program(bare / "gcc", "gcc (Debian) 12")
    assert toolchain.find().identity == "gcc gcc (Debian) 12"
    program(bare / "clang", "Debian clang version 19")
    assert toolchain.find().identity == "clang Debian clang version 19"


def test_the_wheel_is_preferred(bare, monkeypatch):
    program(bare / "clang", "clang version 19")
    monkeypatch.setattr(toolchain, "_ziglang", lambda: program(bare / "zig", "0.17.1"))
    assert toolchain.find().identity == "zig 0.17.1"


def test_the_variable_comes_first(bare, monkeypatch):
    program(bare / "clang", "clang version 19")
    monkeypatch.setenv("REDLINE_CC", str(program(bare / "mycc", "gcc 14")))
    assert toolchain.find().identity == "gcc gcc 14"


def test_no_compiler(bare):
    with pytest.raises(CompilerError, match=r"looked for ziglang, clang, gcc, cc; run pip install 'redline\[build\]'"):
        toolchain.find()


def test_the_variable_names_nothing(bare, monkeypatch):
    monkeypatch.setenv("REDLINE_CC", "nothing")
    with pytest.raises(CompilerError, match=r"\[REDLINE_CC\] there is no program 'nothing'; run pip install"):
        toolchain.find()


def test_a_compiler_that_does_not_answer(bare):
    (bare / "clang").write_text("exit 3\n")
    (bare / "clang").chmod(0o755)
    with pytest.raises(CompilerError, match="does not answer"):
        toolchain.find()


def test_the_path_is_no_part_of_the_identity(tmp_path):
    a, b = (toolchain.Toolchain("gcc", tmp_path / name, "12") for name in "ab")
    assert a == b and a.identity == b.identity


@pytest.mark.parametrize("kind", ["zig", "clang", "gcc"])
def test_flags_say_which_instructions_are_allowed(kind, tmp_path):
    flags = toolchain.Toolchain(kind, tmp_path / "cc", "1").flags(isa.target("avx512+vnni"))
    assert {"-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"} <= set(flags)
    assert "-mavx512bf16" not in flags
    assert "-ffast-math" not in flags
