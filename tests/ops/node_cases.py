"""The ONNX standard's own node tests as (node, inputs, expected outputs), for operators in their newest version."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

from redline import ops
from redline.base import dtypes
from redline.ir import Graph, Node, TensorType, Value, constant, input_node
from redline.passes import decompose

KNOWN = frozenset(dtype.numpy for dtype in dtypes.ALL)
SAME_SINCE = {"Cast": 13, "Identity": 13}  # newer versions only added element types


@dataclass(frozen=True)
class Case:
    name: str
    op: str
    attrs: dict[str, Any]
    num_outputs: int
    inputs: tuple[np.ndarray | None, ...]
    outputs: tuple[np.ndarray | None, ...]
    rtol: float
    atol: float


@cache
def _all_cases() -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(collect_testcases(None))


def cases(names: Iterable[str]) -> Iterator[Case]:
    """The cases whose model is one node of the newest version of an operator among ``names``."""
    names = set(names)
    for case in _all_cases():
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in names and nodes[0].domain == "" and _is_newest(case.model):
            for index, (inputs, outputs) in enumerate(case.data_sets):
                yield _case(case, nodes[0], f"{case.name}/{index}" if index else case.name, inputs, outputs)


def _is_newest(model: onnx.ModelProto) -> bool:
    op, opset = model.graph.node[0].op_type, max(item.version for item in model.opset_import if item.domain == "")
    seen, newest = (onnx.defs.get_schema(op, *version).since_version for version in ((opset,), ()))
    return bool(seen == newest or (op in SAME_SINCE and seen >= SAME_SINCE[op]))


def _case(case: Any, node: onnx.NodeProto, name: str, inputs: list[Any], outputs: list[Any]) -> Case:
    given = dict(zip((item.name for item in case.model.graph.input), map(as_array, inputs), strict=True))
    given |= {item.name: onnx.numpy_helper.to_array(item) for item in case.model.graph.initializer}
    wanted = dict(zip((item.name for item in case.model.graph.output), map(as_array, outputs), strict=True))
    attrs = {item.name: _attribute(item) for item in node.attribute}
    read = tuple(given[key] if key else None for key in node.input)
    return Case(
        name, node.op_type, attrs, len(node.output), read, tuple(wanted.get(key) for key in node.output), case.rtol, case.atol
    )  # fmt: skip


def as_array(item: Any) -> Any:
    """A tensor as an array; sequences and the like as they are."""
    if isinstance(item, onnx.TensorProto):
        return onnx.numpy_helper.to_array(item)
    return np.asarray(item) if isinstance(item, np.generic) else item


def _attribute(proto: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    return tuple(v.decode() if isinstance(v, bytes) else v for v in value) if isinstance(value, list | tuple) else value


def is_supported(case: Case) -> bool:
    """Whether all tensors of the case have element types that the project knows."""
    arrays = [array for array in (*case.inputs, *case.outputs) if array is not None]
    return all(isinstance(array, np.ndarray) and array.dtype in KNOWN for array in arrays)


def build(case: Case) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph of the one node, whose inputs are constants only where the operator asks for them, and what to feed it."""
    static = ops.lookup(case.op).static
    values: list[Value | None] = []
    feeds: dict[str, np.ndarray] = {}
    declared: list[Node] = []
    for i, array in enumerate(case.inputs):
        if array is None or i in static:
            values.append(None if array is None else constant(array.copy()))
            continue
        declared.append(input_node(f"x{i}", TensorType(dtypes.from_numpy(array.dtype), array.shape)))
        feeds[f"x{i}"] = array
        values.append(declared[-1].out)
    node = ops.make_node(case.op, values, case.attrs, num_outputs=case.num_outputs, name=case.name)
    outputs = tuple((f"y{i}", value) for i, value in enumerate(node.outputs()))
    return Graph(case.name, tuple(declared), outputs), feeds


def decomposed(graph: Graph) -> Graph:
    """The graph with every node taken apart as far as it goes."""
    return decompose.run(graph, whole=frozenset())


def compare(case: Case, results: dict[str, np.ndarray]) -> None:
    """Asserts that the results have the expected types, shapes and values, within the case's own tolerance."""
    for i, wanted in enumerate(case.outputs):
        if wanted is None:
            continue
        seen = results[f"y{i}"]
        assert seen.dtype == wanted.dtype and seen.shape == wanted.shape, f"output {i}: {seen.dtype}{seen.shape}"
        exact = wanted.dtype.kind in "iub"
        kind = wanted.dtype if exact else np.float64
        np.testing.assert_allclose(seen.astype(kind), wanted.astype(kind), rtol=case.rtol, atol=case.atol)
