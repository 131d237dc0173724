"""The verb ``cache``: what the folder of compiled kernels and tactic timings holds, and how to empty it."""

from pathlib import Path
from typing import Annotated

import typer

from redline.base import env
from redline.cli import console

PARTS = ("objects", "timings", "zig")  # nothing else is touched: the folder may be one that the user shares with more
Clear = Annotated[bool, typer.Option("--clear", help="Delete every file.")]


def command(clear: Clear = False) -> None:
    """Lists what the cache folder holds, or empties it; the next build fills it again.

    The folder is REDLINE_CACHE_DIR, else the user's cache folder.
    """
    folder = env.cache_dir()
    parts = cached_files(folder)
    rows = [(name, len(files), console.num_bytes(sum(map(_size, files)))) for name, files in parts.items()]
    console.table(str(folder), ("part", "files", "size"), rows)
    if clear:
        for files in parts.values():
            for file in files:
                file.unlink(missing_ok=True)
        console.out().print("cleared")


def cached_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each part of the cache; none where there is no cache yet."""
    return {part: sorted(file for file in (folder / part).rglob("*") if not file.is_dir()) for part in PARTS}


def _size(file: Path) -> int:
    return file.lstat().st_size
