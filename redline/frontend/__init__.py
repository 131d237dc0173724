"""The front end: an ONNX model becomes a Graph of the newest operator semantics. The only package that imports onnx."""

from collections.abc import Mapping, Sequence

from redline.base.errors import ModelError, UnsupportedError
from redline.base.shapes import Shape, StaticShape
from redline.frontend.convert import Converter, Frame
from redline.frontend.inputs import Frozen, bind_inputs, declare
from redline.frontend.read import Parsed, Source, opset_version, read
from redline.frontend.scope import Scope
from redline.frontend.unsupported import Unsupported, error_of
from redline.ir import Graph

__all__ = ["Frozen", "Parsed", "Source", "Unsupported", "declared", "found", "load", "read", "unsupported"]

_NONE: Mapping[str, StaticShape] = {}
_FROZEN: Mapping[str, Frozen] = {}


def load(
    source: Source, *, shapes: Mapping[str, StaticShape] = _NONE, freeze: Mapping[str, Frozen] = _FROZEN,
    counts: Sequence[int] = (),
) -> Graph:  # fmt: skip
    """The model as a Graph; ``source`` is a path, the bytes of one, a ModelProto, or what ``read`` made of one.

    ``shapes`` fixes the shapes of inputs by name, and with them every other input's dimension of the same symbol;
    dimensions that stay open are symbols in the graph's types. ``freeze`` turns inputs into constants.
    ``counts``: see ``found``.
    Raises ModelError when the model is malformed, UnsupportedError naming all nodes that cannot be built, and
    RedlineError when the shapes or arrays do not fit the model.
    """
    graph, missing = _convert(source, shapes, freeze, counts)
    if missing or graph is None:
        raise error_of(missing)
    return graph


def found(graph: Graph) -> tuple[int, ...]:
    """The most that each extent of the graph may be that only a run finds (how many boxes are left, ...).

    The graph is that for ``counts`` of them, in this order, or for the most.
    """
    nodes = [node for node in graph.operations if "slot" in node.attrs]
    mosts = {int(node.attrs["slot"]): int(node.attrs["most"]) for node in nodes}
    return tuple(mosts.get(slot, 1) for slot in range(max(mosts, default=-1) + 1))


def declared(source: Source) -> dict[str, Shape | None]:
    """The shape of every input in the model, with symbols for open extents; None where even the rank is open."""
    model = read(source).model
    initializers = {tensor.name for tensor in model.graph.initializer}
    return {name: item.shape for name, item in declare(p for p in model.graph.input if p.name not in initializers).items()}


def unsupported(source: Source, shapes: Mapping[str, StaticShape] = _NONE) -> list[Unsupported]:
    """Every node that cannot be built at these shapes, in the model's order; empty when ``load`` would succeed."""
    try:
        return _convert(source, shapes, _FROZEN)[1]
    except UnsupportedError as error:  # of an input, before any node
        return [Unsupported(error.where, "Input", "", error.seen, error.remedy or error.allowed)]


def _convert(
    source: Source, shapes: Mapping[str, StaticShape], freeze: Mapping[str, Frozen], counts: Sequence[int] = ()
) -> tuple[Graph | None, list[Unsupported]]:
    parsed = read(source)
    model, proto = parsed.model, parsed.model.graph
    converter, scope = Converter(model, parsed.folder, counts), Scope()
    converter.initializers(proto, scope)
    own = [item for item in proto.input if item.name not in scope.values and item.name not in scope.lost]
    values, nodes = bind_inputs(own, shapes, freeze)
    for name, value in values.items():
        scope.define(name, value, "model")
    converter.body(proto.node, Frame(scope, opset_version(model.opset_import, "model")))
    names = [item.name for item in proto.output]
    if len(set(names)) < len(names) or not names:
        raise ModelError("model", f"its outputs are {names}", "at least one, each name once")
    outputs = [(name, scope.find(name, "model")) for name in names]
    if converter.unsupported:
        return None, converter.unsupported
    return Graph(proto.name, nodes, tuple((name, value) for name, value in outputs if value is not None)), []
