"""If, Loop and Scan, whose bodies are graphs: branches are chosen or both computed, rounds written out one after another.

``body`` converts a graph on given inputs in the scope around it and answers with its outputs; None for what is lost.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from redline.base import shapes
from redline.base.errors import ModelError, UnsupportedError
from redline.frontend.site import Call, Site
from redline.ir import Value, constant

MAX_ROUNDS = 4096
Lost = Value | None
Body = Callable[[onnx.GraphProto, Sequence[Value], str], list[Lost]]

_FIX = "fix shapes (--shapes) or bind the input that decides it (--freeze), or export the model unrolled"


def convert(call: Call, site: Site, body: Body) -> list[Lost]:
    """The outputs of an If, Loop or Scan."""
    return {"If": _if, "Loop": _loop, "Scan": _scan}[call.op](call, site, body)


def _graph(call: Call, site: Site, name: str) -> onnx.GraphProto:
    graph = call.attrs.get(name)
    if not isinstance(graph, onnx.GraphProto):
        raise ModelError(site.label, f"{call.op} lacks its graph {name!r}")
    return graph


def _if(call: Call, site: Site, body: Body) -> list[Lost]:
    """The branch that a known condition chooses. Otherwise both, and one answer chosen at run time."""
    condition = call.input(0)
    if condition is None or (shapes.is_static(condition.shape) and shapes.size(condition.shape) != 1):  # type: ignore[arg-type]
        raise ModelError(site.label, "If without a single condition")
    branches = [_graph(call, site, name) for name in ("then_branch", "else_branch")]
    if condition.array is not None:
        return body(branches[0 if condition.array.all() else 1], (), "")
    then, other = (_branch(body, graph, prefix) for graph, prefix in zip(branches, ("then/", "else/"), strict=True))
    if len(then) != len(other) or any(a and b and a.type != b.type for a, b in zip(then, other, strict=True)):
        seen = "the condition of If is computed at run time, and its branches have answers of different types"
        raise UnsupportedError(site.label, seen, "allowed: a known condition, or equal shapes", _FIX)
    scalar = site.make("Reshape", condition, constant(np.array([], np.int64)))
    return [a and b and site.make("Where", scalar, a, b) for a, b in zip(then, other, strict=True)]


def _branch(body: Body, graph: onnx.GraphProto, prefix: str) -> list[Lost]:
    """The answers of a branch that may be taken. Where it does not fit the inputs, it may be one that never is."""
    try:
        return body(graph, (), prefix)
    except ModelError as error:
        if error.remedy:
            raise
        never = "if this branch of the If is never taken, bind the input that decides it by --freeze NAME=VALUE"
        raise type(error)(error.where, error.seen, error.allowed, never) from error


def _loop(call: Call, site: Site, body: Body) -> list[Lost]:
    """A Loop whose number of rounds is known: states carried from round to round, per-round outputs stacked."""
    graph, states = _graph(call, site, "body"), list(call.inputs[2:])
    if len(graph.output) <= len(states) or None in states:
        raise ModelError(site.label, f"a Loop of {len(states)} states whose body has {len(graph.output)} outputs")
    limit, runs = _known(call.input(0), site, "number of rounds"), _known(call.input(1), site, "condition")
    stacked: list[list[Lost]] = [[] for _ in graph.output[1 + len(states) :]]
    done = 0
    while (limit is None or done < limit) and runs in (None, 1):
        _check_rounds(site, done + 1)
        inputs = [constant(np.array(done)), constant(np.array(True)), *states]
        outputs = body(graph, inputs, f"{done}/")  # type: ignore[arg-type]
        if None in outputs:
            return [None] * (len(states) + len(stacked))
        runs, states = _known(outputs[0], site, "condition"), outputs[1 : 1 + len(states)]
        for column, value in zip(stacked, outputs[1 + len(states) :], strict=True):
            column.append(value)
        done += 1
    return [*states, *(_stack(column, 0, site) for column in stacked)]


def _known(value: Lost, site: Site, what: str) -> int | None:
    """The number that ``value`` is known to be; None when it is absent."""
    if value is None:
        return None
    if value.array is None:
        raise UnsupportedError(site.label, f"the {what} of the loop is computed at run time", "it must be known", _FIX)
    if value.array.size != 1 or value.array.dtype.kind not in "iub":
        raise ModelError(site.label, f"the {what} of the loop is {value.type}", "allowed: one integer or boolean")
    return int(value.array.reshape(()))


def _check_rounds(site: Site, rounds: int) -> None:
    if rounds > MAX_ROUNDS:
        seen, allowed = f"a loop of {rounds} rounds or more", f"allowed: {MAX_ROUNDS}, as they are written out"
        raise UnsupportedError(site.label, seen, allowed, "build the body as a model of its own and loop around the engine")


def _stack(column: Sequence[Lost], axis: int, site: Site) -> Value:
    if not column:
        raise UnsupportedError(site.label, "a loop of no rounds with per-round outputs", "allowed: one round at least", _FIX)
    at = constant(np.array([axis]))
    return site.make("Concat", *(site.make("Unsqueeze", value, at) for value in column), axis=axis)


def _scan(call: Call, site: Site, body: Body) -> list[Lost]:
    """A Scan over axes of known length: each round reads one slice of every scanned input."""
    if call.opset < 9:
        raise UnsupportedError(site.label, "Scan of opset 8", "allowed: from opset 9", "convert it with onnx.version_converter")
    graph, count = _graph(call, site, "body"), int(call.attrs.get("num_scan_inputs", 0))
    inputs = [value for value in call.inputs if value is not None]
    if not 1 <= count <= len(inputs) or len(graph.output) < len(inputs) - count:
        raise ModelError(site.label, f"a Scan of {count} of {len(inputs)} inputs, {len(graph.output)} outputs in its body")
    states: list[Lost] = list(inputs[: len(inputs) - count])
    scanned = inputs[len(inputs) - count :]
    axes = [shapes.axis_index(int(axis), len(value.shape), site.label)
            for axis, value in zip(_each(call, "scan_input_axes", count, site), scanned, strict=True)]  # fmt: skip
    lengths = {shapes.static((value.shape[axis],), site.label)[0] for axis, value in zip(axes, scanned, strict=True)}
    if len(lengths) != 1:
        raise ModelError(site.label, f"scanned axes of extents {sorted(lengths)}", "they must agree")
    (length,) = lengths
    _check_rounds(site, length)
    backward = _each(call, "scan_input_directions", count, site)
    stacked: list[list[Lost]] = [[] for _ in graph.output[len(states) :]]
    for t in range(length):
        rows = [site.make("Gather", value, constant(np.array(length - 1 - t if is_back else t)), axis=axis)
                for value, axis, is_back in zip(scanned, axes, backward, strict=True)]  # fmt: skip
        outputs = body(graph, [*states, *rows], f"{t}/")  # type: ignore[list-item]
        if None in outputs:
            return [None] * len(outputs)
        states = outputs[: len(states)]
        for column, value in zip(stacked, outputs[len(states) :], strict=True):
            column.append(value)
    return [*states, *_scan_outputs(call, stacked, site)]


def _each(call: Call, name: str, count: int, site: Site) -> Sequence[int]:
    """An attribute of one number an input or output; zeros when absent."""
    numbers: Any = call.attrs.get(name) or (0,) * count
    if len(numbers) != count:
        raise ModelError(site.label, f"{name} {tuple(numbers)}", f"{count} numbers")
    return [int(number) for number in numbers]


def _scan_outputs(call: Call, stacked: list[list[Lost]], site: Site) -> list[Value]:
    axes, backward = (_each(call, f"scan_output_{name}", len(stacked), site) for name in ("axes", "directions"))
    outputs = []
    for column, axis, is_back in zip(stacked, axes, backward, strict=True):
        rank = len(column[0].shape) + 1 if column and column[0] is not None else 1
        outputs.append(_stack(column[::-1] if is_back else column, shapes.axis_index(axis, rank, site.label), site))
    return outputs
