"""The operator table judges like ONNX does: planted errors are found, and a worker that dies or hangs is a crash."""

import sys

import node_cases
import numpy as np
import op_table
import pytest
from node_cases import judge, largest_error, static_inputs
from onnx import helper


class Case:
    rtol, atol = 1e-3, 1e-7


def status(expected: np.ndarray, actual: np.ndarray) -> str:
    return judge({"y": expected}, {"y": actual}, Case)["status"]


def test_equal_outputs_pass_with_nan_and_infinities_in_place() -> None:
    value = np.array([np.nan, np.inf, -np.inf, -0.0, 1.0], np.float32)
    assert status(value, value.copy()) == "passed"


@pytest.mark.parametrize("planted", [1.01, np.nan, np.inf, -1.0])
def test_one_wrong_element_is_wrong(planted: float) -> None:
    assert status(np.ones(33, np.float32), np.array([1.0] * 32 + [planted], np.float32)) == "wrong"


def test_another_type_or_shape_is_wrong_even_with_equal_values() -> None:
    assert status(np.ones(3, np.float32), np.ones(3, np.float64)) == "wrong"
    assert status(np.ones((3, 1), np.float32), np.ones(3, np.float32)) == "wrong"


def test_the_error_is_relative_to_the_largest_value() -> None:
    assert largest_error(np.array([100.0, 1.5]), np.array([100.0, 1.0])) == 0.005
    assert largest_error(np.array([np.inf]), np.array([1.0])) == np.inf
    assert largest_error(np.array([]), np.array([])) == 0.0


def test_inputs_that_an_operator_needs_early_are_found() -> None:
    node = helper.make_node("Reshape", ["data", "shape"], ["out"])
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    data = {"data": np.ones((2, 3), np.float32), "shape": np.array([3, 2])}
    assert list(static_inputs(model, data)) == ["shape"]


def test_expanded_cases_belong_to_the_operator_they_expand() -> None:
    assert node_cases.operator("test_prelu_example_expanded") == "PRelu"


@pytest.mark.parametrize(
    ("program", "detail"),
    [("import os; input(); os.abort()", "the process ended with -6"), ("input(); input()", "no answer in 0.5 s")],
)
def test_a_worker_that_dies_or_hangs_is_a_crash(monkeypatch: pytest.MonkeyPatch, program: str, detail: str) -> None:
    monkeypatch.setattr(op_table, "WORKER", [sys.executable, "-c", program])
    (result,) = op_table.run_all(["test_relu"], num_workers=1, seconds=0.5)
    assert result == {"name": "test_relu", "operator": "Relu", "status": "crashed", "detail": detail}


def test_the_table_counts_every_status() -> None:
    results = [
        {"name": "a", "operator": "Relu", "status": "passed", "detail": "", "error": 1e-7, "bound": ["x"], "folded": True},
        {"name": "b", "operator": "Relu", "status": "refused", "detail": "[b] because"},
    ]
    lines = op_table.table(results)
    assert lines[0] == "2 cases: 1 passed, 1 refused, 0 wrong, 0 crashed. 0 of 1 operators pass every case."
    assert lines[1] == "In 1 of the passed cases every input was bound, and the builder computed the answer."
    assert "| Relu | 2 | 1 | 1 | 1 |  |  | 1.0e-07 |" in lines
    assert lines[-1] == "- Relu (1, as b): because"
