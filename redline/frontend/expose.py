"""Models that also give inner values, and pieces of models: for finding the node that goes wrong."""

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

import onnx
from onnx.utils import Extractor

from redline.base.errors import ModelError


def inner_values(path: Path) -> list[tuple[str, str]]:
    """(node's name, value's name) of every value that a node of the main graph gives, in the model's order."""
    return [
        (node.name or node.op_type, name)
        for node in onnx.load(str(path), load_external_data=False).graph.node
        for name in node.output
        if name and node.op_type != "Constant"
    ]


def with_outputs(path: Path, names: Collection[str]) -> bytes:
    """The model with these inner values as further outputs."""
    model = onnx.load(str(path))
    there = {output.name for output in model.graph.output}
    for name in names:
        if name not in there:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model.SerializeToString()


def piece(path: Path, inputs: Sequence[str], outputs: Sequence[str], to: Path) -> None:
    """Writes the nodes between ``inputs`` and ``outputs`` as a model. Raises ModelError where they do not connect."""
    model = onnx.load(str(path))
    with contextlib.suppress(Exception):  # shapes make better inputs, but a model need not allow it
        model = onnx.shape_inference.infer_shapes(model)
    try:
        onnx.save(Extractor(model).extract_model(list(inputs), list(outputs)), str(to))
    except Exception as error:  # the extractor raises whatever it meets
        raise ModelError(str(path), f"no piece from {list(inputs)} to {list(outputs)}: {error}") from error


def reads(path: Path) -> dict[str, tuple[str, ...]]:
    """For every value that a node gives, the values that the node reads: inputs and inner values, no constants."""
    graph = onnx.load(str(path), load_external_data=False).graph
    constant = {item.name for item in graph.initializer}
    constant |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    return {
        name: tuple(dict.fromkeys(i for i in node.input if i and i not in constant))
        for node in graph.node
        for name in node.output
        if name
    }
