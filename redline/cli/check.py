"""The verb ``check``: prints what ``redline.frontend.unsupported`` finds, equal causes counted together."""

from collections import defaultdict
from collections.abc import Sequence

import typer

from redline import frontend
from redline.base import shapes as shapes_
from redline.cli import console, options
from redline.frontend.unsupported import Unsupported

MAX_NAMED = 3


def command(model: options.Model, shapes: options.Shapes = None) -> None:
    """Lists every node of a model that Redline does not build, with the reason and what to do.

    Exits with 0 when the whole model builds, with 2 when some of it does not.
    """
    found = frontend.unsupported(model, shapes_.parse_shapes(shapes or []))
    if not found:
        console.out().print("every node builds")
        return
    headings = ("count", "operator", "nodes", "why", "what to do")
    console.table(f"{len(found)} nodes do not build", headings, _rows(found), numbers_from=len(headings))
    raise typer.Exit(2)


def _rows(found: Sequence[Unsupported]) -> list[tuple[object, ...]]:
    causes: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for item in found:
        operator = f"{item.domain}.{item.op}" if item.domain else item.op
        causes[operator, item.reason, item.remedy].append(item.node)
    largest_first = sorted(causes.items(), key=lambda cause: -len(cause[1]))
    return [(len(nodes), operator, _names(nodes), reason, remedy) for (operator, reason, remedy), nodes in largest_first]


def _names(nodes: Sequence[str]) -> str:
    more = len(nodes) - MAX_NAMED
    return ", ".join(nodes[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
