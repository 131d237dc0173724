"""Many small models built as one engine, so that a test of fifty operators costs one compilation.

A ``Case`` is a small model and what to feed it. ``answers`` puts cases side by side into one model, builds it, runs it
once and gives each case its own outputs back; ``check`` compares them with the interpreter and with ONNX Runtime.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import redline
from redline import frontend, ops
from redline.base.dtypes import DType
from redline.cli.comparison import compare
from redline.cli.tolerance import TABLE

OPSET, IR_VERSION = 24, 11
Arrays = dict[str, np.ndarray]
RNG = np.random.default_rng(3)


@dataclass(frozen=True)
class Case:
    """``witness``: whether ONNX Runtime runs it too."""

    name: str
    nodes: Sequence[onnx.NodeProto]
    feeds: Mapping[str, np.ndarray]
    outputs: Sequence[str]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    witness: bool = True


@dataclass(frozen=True)
class Fixed:
    """An input of a node that is an initializer of the model."""

    array: np.ndarray


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def weights(*shape: int) -> Fixed:
    return Fixed(floats(*shape))


def ints(*numbers: int) -> Fixed:
    return Fixed(np.array(numbers, np.int64))


def one(
    name: str, op: str, *inputs: np.ndarray | Fixed | None, outputs: Sequence[str] = ("y",), witness: bool = True, **attrs: Any
) -> Case:
    """A case of one node: arrays are fed, ``Fixed`` ones are constants, None is an absent input."""
    names = ["" if item is None else f"x{i}" for i, item in enumerate(inputs)]
    feeds = {f"x{i}": item for i, item in enumerate(inputs) if isinstance(item, np.ndarray)}
    constants = {f"x{i}": item.array for i, item in enumerate(inputs) if isinstance(item, Fixed)}
    nodes = [helper.make_node(op, names, list(outputs), name="node", **attrs)]
    return Case(name, nodes, feeds, [output for output in outputs if output], constants, witness)


def model(cases: Sequence[Case], prefixed: bool = True) -> onnx.ModelProto:
    """The cases side by side; the names of a case begin with its own where ``prefixed``."""
    assert len({case.name for case in cases}) == len(cases)
    nodes, inputs, outputs, constants = [], [], [], []
    for case in cases:
        before = f"{case.name}/" if prefixed else ""
        for node in case.nodes:
            renamed = onnx.NodeProto()
            renamed.CopyFrom(node)
            renamed.name = before + node.name
            renamed.input[:] = [name and before + name for name in node.input]
            renamed.output[:] = [name and before + name for name in node.output]
            nodes.append(renamed)
        for name, array in case.feeds.items():
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(before + name, kind, array.shape))
        outputs += [onnx.ValueInfoProto(name=before + name) for name in case.outputs]
        constants += [numpy_helper.from_array(array, before + name) for name, array in case.constants.items()]
    graph = helper.make_graph(nodes, "bundle", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def answers(cases: Sequence[Case], **options: Any) -> dict[str, Arrays]:
    """What one engine of all cases answers, by case."""
    engine = redline.build(model(cases), **{"opt_level": 0, "num_threads": 2} | options)
    found = engine.run({f"{case.name}/{name}": array for case in cases for name, array in case.feeds.items()})
    return {case.name: {name: found[f"{case.name}/{name}"] for name in case.outputs} for case in cases}


def interpreted(case: Case) -> Arrays:
    return ops.run(frontend.load(model([case], prefixed=False)), case.feeds)


def witnessed(case: Case) -> Arrays:
    """ONNX Runtime's answers, nothing optimised."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model([case], prefixed=False).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return dict(zip(case.outputs, session.run(list(case.outputs), dict(case.feeds)), strict=True))


def check_near(case: Case, found: Arrays, storage: DType) -> None:
    """Asserts that the engine's answers are as near to the interpreter's as values held in ``storage`` allow."""
    tolerance = TABLE[storage]
    for verdict, wanted in zip(compare(interpreted(case), found), found.values(), strict=True):
        scale = float(np.abs(wanted.astype(np.float64)).max(initial=0)) or 1.0
        near = verdict.relative_l2 <= tolerance.relative_l2 and verdict.max_abs <= tolerance.relative_max * scale
        assert verdict.passed or (near and wanted.dtype.kind == "f"), str(verdict)


def check(case: Case, found: Arrays) -> None:
    """Asserts that the engine's answers are the interpreter's, and ONNX Runtime's."""
    for source, expected in (("interpreter", interpreted), ("ONNX Runtime", witnessed)):
        if source == "interpreter" or case.witness:
            verdicts = compare(expected(case), found)
            assert [f"{source}: {verdict}" for verdict in verdicts if not verdict.passed] == []
