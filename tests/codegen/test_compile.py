"""The object cache, errors of the compiler, and the flags' promise: the same text gives the same bytes."""

import subprocess

import pytest

from redline.base.errors import CompilerError
from redline.codegen.c import compile as c_compile
from redline.codegen.c import isa, toolchain
from redline.codegen.c.compile import compile_objects, key, source
from redline.kernels.problem import KernelCode

TARGET = isa.target("avx2", 1)
TOOLS = toolchain.find()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("REDLINE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "objects"


def text(number):
    return f"int answer(void) {{ return {number}; }}\n"


@pytest.fixture
def no_compiler(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the compiler was called")

    return lambda: monkeypatch.setattr(subprocess, "run", refuse)


def test_objects_come_in_the_order_of_the_texts_and_equal_texts_once(cache):
    calls = []
    built = compile_objects(
        [text(1), text(2), text(1)], TARGET, TOOLS, progress=lambda done, total: calls.append((done, total))
    )
    assert built[0] == built[2] != built[1]
    assert all(b.startswith(b"\x7fELF") for b in built)
    assert calls == [(1, 2), (2, 2)]
    assert len(list(cache.iterdir())) == 2


def test_nothing_to_compile():
    assert compile_objects([], TARGET, TOOLS) == []


def test_a_second_build_calls_no_compiler(no_compiler):
    first = compile_objects([text(1)], TARGET, TOOLS)
    no_compiler()
    assert compile_objects([text(1)], TARGET, TOOLS) == first


@pytest.mark.parametrize("damage", [b"", b"\0", b"x" * 100], ids=["empty", "short", "other"])
def test_a_damaged_entry_is_made_again(cache, damage):
    first = compile_objects([text(1)], TARGET, TOOLS)
    (entry,) = cache.iterdir()
    entry.write_bytes(damage)
    assert compile_objects([text(1)], TARGET, TOOLS) == first
    assert len(entry.read_bytes()) == len(first[0]) + c_compile.HASH_BYTES


def test_the_same_text_gives_the_same_bytes(cache):
    first = compile_objects([text(1)], TARGET, TOOLS)
    (entry,) = cache.iterdir()
    entry.unlink()
    assert compile_objects([text(1)], TARGET, TOOLS) == first


def test_a_cache_that_cannot_be_written_costs_time_only(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    compile_objects([text(1)], TARGET, TOOLS)  # the compiler's own cache must have a place
    monkeypatch.setattr(c_compile.env, "cache_dir", lambda: tmp_path / "file")
    assert compile_objects([text(2)], TARGET, TOOLS)[0].startswith(b"\x7fELF")


def test_keys_differ_by_text_target_and_compiler(tmp_path):
    other = toolchain.Toolchain("gcc", tmp_path, "12")
    keys = {key(text(1), TARGET, TOOLS), key(text(2), TARGET, TOOLS), key(text(1), TARGET, other)}
    keys |= {key(text(1), isa.target(name, 1), TOOLS) for name in ("avx512", "avx512+vnni", "generic")}
    assert len(keys) == 6
    assert key(text(1), isa.target("avx2", 7), TOOLS) in keys  # the number of threads does not change the code


def test_an_error_of_the_compiler_is_shown():
    with pytest.raises(CompilerError, match=r"(?s)\[compiler\] .* failed \(1\):.*undeclared.*missing"):
        compile_objects(["int f(void) { return missing; }\n"], TARGET, TOOLS)


def test_a_function_that_nobody_declared_is_an_error():
    with pytest.raises(CompilerError, match="sinq"):
        compile_objects(["double f(double x) { return sinq(x); }\n"], TARGET, TOOLS)


def test_a_compiler_that_is_gone(tmp_path):
    with pytest.raises(CompilerError, match=r"cannot be run: .*; run pip install"):
        compile_objects([text(1)], TARGET, toolchain.Toolchain("gcc", tmp_path / "gone", "1"))


def test_a_compiler_that_hangs(monkeypatch):
    monkeypatch.setattr(c_compile, "LIMIT_S", 0.2)
    with pytest.raises(CompilerError, match=r"did not end within 0\.2 s"):
        c_compile.run(["sleep", "20"])


def test_a_kernel_is_compiled_under_its_symbol():
    code = KernelCode("pointwise", "void KERNEL(void) {}\n", 1)
    assert source(code) == f"#define KERNEL {code.symbol}\nvoid KERNEL(void) {{}}\n"
    assert code.symbol.encode() in compile_objects([source(code)], TARGET, TOOLS)[0]
