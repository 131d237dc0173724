"""The only reader of the process environment."""

import os
from pathlib import Path

from redline.base.errors import RedlineError


def _integer(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise RedlineError(name, f"{text!r} is out of range", f"allowed: an integer in {low}..{high}")
    return int(text)


def debug_level() -> int:
    """REDLINE_DEBUG, 0 to 5: see docs/guide.md for what each level prints."""
    return _integer("REDLINE_DEBUG", 0, 0, 5)


def cache_dir() -> Path:
    """REDLINE_CACHE_DIR, else the user's cache folder: compiled kernels and tactic timings."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("REDLINE_CACHE_DIR") or Path(base) / "redline")


def compiler() -> str:
    """REDLINE_CC: path of the C compiler to use; empty to look for one."""
    return os.environ.get("REDLINE_CC", "")


def num_threads() -> int:
    """REDLINE_NUM_THREADS: the most threads an engine may use; 0 means as many as the process is allowed cores."""
    return _integer("REDLINE_NUM_THREADS", 0, 0, 1024)


def bearer_token() -> str:
    """REDLINE_TOKEN: the bearer token that callers of the server must send; empty for none."""
    return os.environ.get("REDLINE_TOKEN", "")


def child_environment(**changes: str) -> dict[str, str]:
    """The environment for a process that Redline starts: this one's, with ``changes``."""
    return {**os.environ, **changes}
