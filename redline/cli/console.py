"""What every verb prints with: consoles, tables and the units of numbers."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 1000


def out() -> Console:
    """Standard output as it is now (made anew each time: tests and pipes replace it)."""
    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def error(sentence: str) -> None:
    err().print(Text(sentence, style="bold red"))


def note(sentence: str) -> None:
    """A remark that is not part of the answer, on standard error."""
    err().print(Text(sentence, style="yellow"))


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int = 1) -> None:
    """Prints rows under headings; columns from ``numbers_from`` on are flush right. A pipe gets lines of any length."""
    grid = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column, heading in enumerate(headings):
        grid.add_column(heading, justify="right" if column >= numbers_from else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    console = out()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(grid)


def num_bytes(count: float) -> str:
    """``1536`` as ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def seconds(value: float) -> str:
    """``0.00123`` as ``1.230 ms``."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3f} ms" if value >= 1e-3 else f"{value * 1e6:.1f} us"


def count(value: int) -> str:
    """``25557032`` as ``25.6 M``."""
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return str(value)


def rates(flops: int, bytes_moved: int, time_s: float) -> tuple[str, str]:
    """GFLOP/s and GB/s of work done in ``time_s``; empty where nothing was timed."""
    if time_s <= 0:
        return "", ""
    return f"{flops / time_s / 1e9:.1f}", f"{bytes_moved / time_s / 1e9:.1f}"
