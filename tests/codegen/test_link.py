"""The code of an engine: reproducible, few dependencies, nothing of this machine in it, and wrong plans refused."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from redline.base.errors import BuildError, CompilerError
from redline.codegen.c import isa, toolchain
from redline.codegen.c.compile import compile_objects
from redline.codegen.c.link import link_engine
from redline.codegen.c.plan import Plan, Ref, Space, Step, render
from redline.runtime.library import Library
from tests.small_engines import kernel, small_engine

TARGET, TOOLS = isa.target("cpu"), toolchain.find()
STEP = Step("plus", 6, (Ref(Space.INPUT), Ref(Space.OUTPUT)))


def objects():
    return compile_objects([kernel("plus", "a[i] + 1", 1)], TARGET, TOOLS)


def test_the_same_plan_gives_the_same_bytes():
    assert link_engine(objects(), [Plan((STEP,), 64)], TARGET, TOOLS) == link_engine(
        objects(), [Plan((STEP,), 64)], TARGET, TOOLS
    )


def test_nothing_of_this_machine_is_in_the_code():
    code = small_engine().code
    assert str(TOOLS.path.parent).encode() not in code
    assert b"/tmp" not in code and b"/home" not in code and sys.prefix.encode() not in code


def test_code_needs_the_c_library_only(tmp_path):
    (tmp_path / "code.so").write_bytes(small_engine().code)
    try:
        shown = subprocess.run(["readelf", "-d", "-W", tmp_path / "code.so"], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("readelf is not installed")
    needed = {line.split("[")[1].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0"}


def test_a_symbol_that_nobody_defines():
    with pytest.raises(CompilerError, match="other"):
        link_engine(objects(), [Plan((replace(STEP, symbol="other"),), 64)], TARGET, TOOLS)


def test_a_plan_without_steps_runs():
    library = Library.from_bytes(link_engine([], [Plan((), 0)], TARGET, TOOLS))
    assert library.num_steps == (0,)
    assert library.workspace_bytes(0, 4) >= 0
    library.close()


def test_the_workspace_holds_arena_and_scratch_and_the_state_counters_of_each_thread():
    library = Library.from_bytes(link_engine(objects(), [Plan((STEP,), 1000, 100)], TARGET, TOOLS))
    one, three = library.workspace_bytes(0, 1), library.workspace_bytes(0, 3)
    assert one >= 1024 + 128
    assert three - one == 2 * 128
    assert library.state_bytes(0, 3) - library.state_bytes(0, 1) == 2 * 64
    library.close()


def test_a_plan_of_too_many_chunks():
    with pytest.raises(BuildError, match=r"\[plan\] the plan has 2\^31 chunks or more; use schedules with larger chunks"):
        render([Plan((replace(STEP, num_chunks=1 << 30),) * 2, 64)])


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_other_compilers_link_engines_too(monkeypatch, name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("REDLINE_CC", name)
    tools = toolchain.find()
    assert tools.kind == name
    built = compile_objects([kernel("plus", "a[i] + 1", 1)], TARGET, tools)
    library = Library.from_bytes(link_engine(built, [Plan((STEP,), 64)], TARGET, tools))
    assert library.num_steps == (1,)
    library.close()
