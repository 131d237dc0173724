"""One of ONNX's own node test cases through a built engine: case name in, verdict out.

As a program it is the worker of op_table.py: reads case names from standard input, one a line, and answers each with a line
of JSON. A crash of generated code then ends the worker and not the table.

    echo test_relu | python bench/node_cases.py
"""

import json
import re
import sys
import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

import redline
from redline import ops
from redline.base.errors import RedlineError

Feed = dict[str, Any]


@cache
def cases() -> dict[str, Any]:
    """Every node case by name, in ONNX's order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases(None)}


def operator(name: str) -> str:
    """The operator that a case is about; cases "..._expanded..." belong to the operator that they expand."""
    whole = cases().get(re.sub(r"_expanded.*", "", name), cases()[name])
    node = whole.model.graph.node[0]
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def run(name: str) -> dict[str, Any]:
    """``status`` is passed, refused (with the sentence) or wrong (with what differs); ``bound``: the inputs made constants.

    ``folded``: every input was, so that the builder computed the answer and no kernel did.
    """
    try:
        inputs, wanted = data(name)
        engine, bound = build(cases()[name].model, inputs)
        found = engine.run({key: value for key, value in inputs.items() if key not in bound})
    except RedlineError as error:
        return {"status": "refused", "detail": str(error)}
    folded = bool(bound) and len(bound) == len(inputs)
    return {**judge(wanted, found, cases()[name]), "bound": sorted(bound), "folded": folded}


def build(model: onnx.ModelProto, inputs: Feed) -> tuple[Any, Feed]:
    """The engine and the inputs bound for it: none, else the ones that operators name, else short integers as well."""
    named = static_inputs(model, inputs)
    short = {name: value for name, value in inputs.items() if value.dtype.kind in "iu" and value.ndim <= 1}
    refused: RedlineError | None = None
    for bound in ({}, named, named | short):
        if refused is None or bound:
            try:
                return redline.build(model, opt_level=0, freeze=bound), bound
            except RedlineError as error:
                refused = error
    assert refused
    raise refused


def data(name: str) -> tuple[Feed, Feed]:
    """Inputs and expected outputs by name; raises RedlineError where one of them is no tensor of numbers."""
    case = cases()[name]
    inputs, outputs = case.data_sets[0]
    sides = (case.model.graph.input, inputs), (case.model.graph.output, outputs)
    read = [{item.name: _array(value) for item, value in zip(*side, strict=True)} for side in sides]
    if name.startswith("test_dft_inverse"):
        read[1] = {"y": _inverse_dft(case.model.graph.node[0], read[0])}
    return read[0], read[1]


def _inverse_dft(node: onnx.NodeProto, inputs: Feed) -> np.ndarray:
    """What ONNX computes with a float32 transform, whose rounding is larger than the cases' tolerance, in float64."""
    axis = int(inputs["axis"]) if "axis" in inputs else next(a.i for a in node.attribute if a.name == "axis")
    x = inputs["x"].astype(np.float64)
    y = np.fft.ifft(x[..., 0] + 1j * x[..., 1], axis=axis)
    return np.stack((y.real, y.imag), axis=-1).astype(np.float32)


def _array(value: Any) -> np.ndarray:
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
    if not isinstance(array, np.ndarray | np.generic):
        raise RedlineError("input", f"{type(value).__name__} is no tensor", "only tensors are supported")
    return np.asarray(array)


def static_inputs(model: onnx.ModelProto, inputs: Feed) -> Feed:
    """The inputs that an operator which reads them wants to know at build time."""
    names: set[str] = set()
    for node in model.graph.node:
        known = ops.known().get(node.op_type)
        names |= {node.input[i] for i in known.static if i < len(node.input)} if known else set()
    return {name: value for name, value in inputs.items() if name in names}


def judge(wanted: Feed, found: Feed, case: Any) -> dict[str, Any]:
    """Compares as ONNX's own backend test does: same shapes and types, values within the case's tolerances."""
    worst = 0.0
    for name, expected in wanted.items():
        actual = np.asarray(found[name])
        if (actual.shape, actual.dtype) != (expected.shape, expected.dtype):
            seen = f"{actual.dtype}{list(actual.shape)}, expected {expected.dtype}{list(expected.shape)}"
            return {"status": "wrong", "detail": f"{name} is {seen}", "error": worst}
        a, e = (_numbers(array) for array in (actual, expected))
        worst = max(worst, largest_error(a, e))
        rtol = max(case.rtol, 2**-6) if expected.dtype.name == "bfloat16" else case.rtol  # as ONNX's own runner does
        if not np.allclose(a, e, rtol, case.atol, equal_nan=True):
            return {"status": "wrong", "detail": f"{name} differs by up to {worst:.2g}", "error": worst}
    return {"status": "passed", "detail": "", "error": worst}


def _numbers(array: np.ndarray) -> np.ndarray:
    """An array that numpy can subtract and compare without loss; 64-bit integers beyond 2**53 are compared as floats."""
    return array if array.dtype.kind == "c" else array.astype(np.float64)


def largest_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a part of the largest expected value (at least 1); infinite where only one is finite."""
    both = np.isfinite(actual) & np.isfinite(expected)
    with np.errstate(invalid="ignore"):
        same = both | (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    if not same.all():
        return float("inf")
    if not both.any():
        return 0.0
    scale = max(1.0, float(np.abs(expected[both]).max()))
    return float(np.abs(actual[both] - expected[both]).max()) / scale


def main() -> None:
    for line in sys.stdin:
        name = line.strip()
        try:
            verdict = run(name)
        except Exception as error:  # a bug in Redline, which is what the table is there to show
            verdict = {"status": "crashed", "detail": f"{type(error).__name__}: {error}"}
        print(json.dumps({"name": name, "operator": operator(name), **verdict}), flush=True)


if __name__ == "__main__":
    main()
