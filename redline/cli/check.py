"""The verb ``check``: every node that would not build, equal causes counted together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import typer

from redline import frontend, lower, passes
from redline.base.errors import UnsupportedError
from redline.base.shapes import ShapeRange, StaticShape, is_static, parse_shapes, text
from redline.cli import console, options
from redline.frontend import Unsupported
from redline.ir import Graph

MAX_NAMED = 3


def command(model: options.Model, shapes: options.Shapes = None) -> None:
    """Lists every node of a model that Redline does not build, with the reason and what to do.

    Exits with 0 when the whole model builds, with 2 when some of it does not.
    """
    largest = {name: s.max if isinstance(s, ShapeRange) else s for name, s in parse_shapes(shapes or []).items()}
    found = find_unsupported(model, largest)
    if not found:
        console.out().print("every node builds")
        return
    headings = ("count", "operator", "nodes", "why", "what to do")
    console.table(f"nodes that do not build: {len(found)}", headings, _rows(found), numbers_from=len(headings))
    raise typer.Exit(2)


def find_unsupported(model: frontend.Source, shapes: Mapping[str, StaticShape]) -> list[Unsupported]:
    """Every node that the front end cannot read or, where it reads all, every one that has no kernel in the end.

    Raises ModelError for what is no model, and UnsupportedError when input dimensions are open.
    """
    found = frontend.unsupported(model, shapes)
    if found:
        return found
    graph = frontend.load(model, shapes=shapes)
    _check_open_inputs(graph)
    lost = lower.unsupported(passes.optimize(graph))
    return [Unsupported(", ".join(node.origin) or node.name, node.op, "", "no kernel computes it", "") for node in lost]


def _check_open_inputs(graph: Graph) -> None:
    inputs = [f"{node.name} {text(node.types[0].shape)}" for node in graph.inputs if not is_static(node.types[0].shape)]
    if inputs:
        seen = f"inputs with open dimensions: {', '.join(inputs)}"
        raise UnsupportedError("model", seen, "an engine has fixed shapes", "fix them with --shapes NAME:1x3x224x224")


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
