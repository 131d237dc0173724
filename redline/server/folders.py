"""The model repository as folders: which models and versions there are, and whether they changed. Refuses path tricks."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from redline.base.errors import closest
from redline.server.errors import invalid, not_found

NAME = re.compile(r"(?!\.)[^/\\\0-\x1f\x7f]{1,255}")
VERSION = re.compile(r"[1-9]\d{0,17}")
MAX_FINGERPRINT_FILES = 10_000


def check_name(name: str) -> str:
    """``name`` itself; raises ServeError for one that could lead out of the repository."""
    if not NAME.fullmatch(name):
        allowed = "allowed: 1..255 characters, no slashes or control characters, not starting with a dot"
        raise invalid("model name", f"{name[:80]!r} is no name of a model", allowed)
    return name


def check_version(version: str) -> int:
    """The number of a version; raises ServeError for other text."""
    if not VERSION.fullmatch(version):
        raise invalid("model version", f"{version[:40]!r} is no version", "allowed: a whole number from 1 on")
    return int(version)


def model_names(repositories: Sequence[Path]) -> list[str]:
    """The folders with names of models, sorted."""
    names = set()
    for repository in repositories:
        with os.scandir(repository) as entries:
            names |= {entry.name for entry in entries if entry.is_dir() and NAME.fullmatch(entry.name)}
    return sorted(names)


def model_folder(repositories: Sequence[Path], name: str) -> Path:
    """The folder of a model; raises ServeError where there is none, or two."""
    check_name(name)
    found = [repository / name for repository in repositories if (repository / name).is_dir()]
    if not found:
        raise not_found(f"model {name!r}", "it is not in the repository", closest(name, model_names(repositories)))
    if len(found) > 1:
        raise invalid(f"model {name!r}", f"two repositories have it: {found[0].parent} and {found[1].parent}")
    return found[0]


def version_folders(folder: Path) -> dict[int, Path]:
    """The versions in a model's folder. Folders with other names are not versions."""
    with os.scandir(folder) as entries:
        return {int(e.name): folder / e.name for e in entries if VERSION.fullmatch(e.name) and e.is_dir()}


def fingerprint(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Name, time, size and inode of every file below a model's folder: equal where nothing changed."""
    found = []
    for path in sorted(folder.rglob("*"))[:MAX_FINGERPRINT_FILES]:
        try:
            entry = path.stat()
        except OSError:
            continue
        found.append((str(path.relative_to(folder)), entry.st_mtime_ns, entry.st_size, entry.st_ino))
    return tuple(found)
