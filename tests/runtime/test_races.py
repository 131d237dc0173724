"""The C half of the runtime under the thread sanitizer: many callers, helpers that come and go, profiles, the end of a pool."""

import shutil
import subprocess
from pathlib import Path

import pytest

from redline.codegen.c.link import package_text
from redline.codegen.c.plan import Plan, Ref, Space, Step, render

CHUNKS, LENGTH = 6, 33
KERNEL = """
void {name}(void *const *args, void *scratch, int64_t chunk) {{
    const float *a = args[0];
    float *out = args[1];
    *(volatile int64_t *)scratch = chunk;
    {pause}
    for (int64_t i = chunk * {length}; i < (chunk + 1) * {length}; i++) out[i] = {value};
}}
"""


def program(barrier: bool) -> str:
    steps = (
        Step("plus", CHUNKS, (Ref(Space.INPUT), Ref(Space.ARENA))),
        Step("twice", CHUNKS, (Ref(Space.ARENA), Ref(Space.OUTPUT)), barrier),
    )
    pause = "" if barrier else "usleep(50);"  # so that a second thread is there in time, however busy the machine
    plan = render([Plan(steps, CHUNKS * LENGTH * 4 + 24, 64)])
    kernels = [
        KERNEL.format(name=n, length=LENGTH, value=v, pause=pause) for n, v in (("plus", "a[i] + 1"), ("twice", "2 * a[i]"))
    ]
    parts = [package_text(name) for name in ("executor.h", "pool.c", "executor.c")]
    return "\n".join([*parts, *kernels, plan, (Path(__file__).parent / "race_driver.c").read_text()])


def sanitized(folder: Path, barrier: bool) -> subprocess.CompletedProcess[str]:
    """The program's run under the sanitizer; skips the test where no compiler has one."""
    compiler = shutil.which("clang") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs clang or gcc")
    flags = ["-fsanitize=thread", "-O1", "-g", "-std=gnu11", "-x", "c", "-", "-o", str(folder / "races"), "-lpthread"]
    built = subprocess.run([compiler, *flags], input=program(barrier), capture_output=True, text=True)
    if "cannot find" in built.stderr:
        pytest.skip("the compiler has no thread sanitizer")
    assert built.returncode == 0, built.stderr
    return subprocess.run([folder / "races"], capture_output=True, text=True, timeout=300)


def test_the_thread_sanitizer_finds_nothing(tmp_path):
    done = sanitized(tmp_path, barrier=True)
    assert "WARNING: ThreadSanitizer" not in done.stderr, done.stderr[:4000]
    assert (done.returncode, done.stdout) == (0, "wrong answers: 0\n")


@pytest.mark.slow  # two threads must meet, which a busy machine may not let happen
def test_the_thread_sanitizer_finds_a_missing_barrier(tmp_path):
    """On a busy machine the threads may never meet in one run, so there are several."""
    assert any("WARNING: ThreadSanitizer: data race" in sanitized(tmp_path, barrier=False).stderr for _ in range(5))
