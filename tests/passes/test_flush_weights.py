"""Weights that are no normal numbers: zero where they are factors, as they are elsewhere."""

import numpy as np
import pytest
from checking import arg, const, constants, graph_of, names, unchanged

from redline.ops import make
from redline.passes.flush_weights import run

TINY = np.array([[1e-39, -1e-42, 0.5], [1.2e-38, -3.0, 0.0]], np.float32)
FLUSHED = np.array([[0.0, 0.0, 0.5], [1.2e-38, -3.0, 0.0]], np.float32)


@pytest.mark.parametrize("op, shape", [("MatMul", (2, 3)), ("Conv", (2, 3, 1, 1)), ("ConvTranspose", (2, 3, 1, 1))])
def test_factors_of_products(op, shape):
    rows = {"MatMul": (4, 2), "Conv": (1, 3, 5, 5), "ConvTranspose": (1, 2, 5, 5)}[op]
    bias = [] if op == "MatMul" else [None]
    graph = run(graph_of(make(op, arg(rows), const(TINY.reshape(shape)), *bias)))
    (found,) = constants(graph)
    np.testing.assert_array_equal(found.reshape(2, 3), FLUSHED)
    assert names(graph) == [op]


def test_other_constants_stay():
    unchanged(run, make("Add", arg((2, 3)), const(TINY)))
    unchanged(run, make("MatMul", arg((4, 2)), const(FLUSHED)))
