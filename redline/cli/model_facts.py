"""What an ONNX file says about itself, without building it: ``describe_model(path)`` gives plain JSON-able facts."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redline.base import dtypes
from redline.frontend.read import read


def describe_model(path: Path) -> dict[str, Any]:
    """Inputs, outputs, opsets, operators by count and parameters. Raises ModelError for what is no ONNX model."""
    model = read(path).model
    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    operators = Counter(_operator(node) for node in _nodes(graph))
    return {
        "file": str(path),
        "num_bytes": path.stat().st_size,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "ir_version": model.ir_version,
        "opsets": {item.domain or "ai.onnx": item.version for item in model.opset_import},
        "inputs": [_tensor(item) for item in graph.input if item.name not in initializers],
        "outputs": [_tensor(item) for item in graph.output],
        "num_nodes": operators.total(),
        "operators": dict(operators.most_common()),
        "num_parameters": sum(math.prod(tensor.dims) for tensor in graph.initializer),
        "parameter_bytes": sum(math.prod(tensor.dims) * _element_bytes(tensor.data_type) for tensor in graph.initializer),
    }


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the branches and bodies inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _nodes(inner)


def _operator(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _element_bytes(onnx_type: int) -> int:
    return dtypes.BY_ONNX[onnx_type].size if onnx_type in dtypes.BY_ONNX else 1


def _tensor(info: Any) -> dict[str, Any]:
    kind = info.type.tensor_type
    dtype = dtypes.BY_ONNX[kind.elem_type].name if kind.elem_type in dtypes.BY_ONNX else f"ONNX type {kind.elem_type}"
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim]
    return {"name": info.name, "dtype": dtype, "shape": dims if kind.HasField("shape") else "?"}
