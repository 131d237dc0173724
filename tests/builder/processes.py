"""Processes of their own for what may die, hang or take all memory: with a fresh cache, a limit of memory and a clock."""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from redline.base import env

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path) -> dict[str, str]:
    """A cache folder in ``folder``, fresh but for the C library's stubs, which take seconds to make."""
    cache, stubs = folder / "cache", env.cache_dir() / "zig"
    cache.mkdir(exist_ok=True)
    stubs.mkdir(parents=True, exist_ok=True)
    if not (cache / "zig").exists():
        (cache / "zig").symlink_to(stubs)
    return {**os.environ, "REDLINE_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}


def start(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Python with ``arguments``, in ``folder``."""
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    )  # fmt: skip


def limit_memory(num_bytes: int) -> None:
    """Allocations beyond that fail in this process and in those that it starts."""
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def finish(process: subprocess.Popen[str], seconds: float) -> tuple[int, str]:
    """Exit status and output; kills the process when time is up, and fails then."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"it hangs; its last words: {output[-300:]!r}") from None
    return process.returncode, output
