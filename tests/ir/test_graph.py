import numpy as np
import pytest

from redline.base import dtypes
from redline.base.errors import RedlineError
from redline.base.shapes import Sym
from redline.ir import Graph, Node, TensorType, Value, constant, input_node
from redline.ir.verify import verify

TYPE = TensorType(dtypes.float32, (2, Sym("n")))
X = input_node("x", TYPE)


def op(name, *inputs, outputs=1, **attrs):
    return Node(name, inputs, (TYPE,) * outputs, attrs, name=name)


def test_nodes_come_after_their_inputs_once_each():
    a = op("A", X.out)
    graph = Graph("g", (X,), (("y", op("C", op("B", a.out).out, a.out).out), ("z", a.out)))
    assert [node.op for node in graph.nodes] == ["Input", "A", "B", "C"]
    assert graph.uses[a.out] == 3 and graph.uses[X.out] == 1


def test_a_very_deep_graph_overflows_nothing():
    value = X.out
    for _ in range(20_000):
        value = op("A", value).out
    graph = Graph("g", (X,), (("y", value),))
    assert len(graph.nodes) == 20_001
    verify(graph)


def test_unread_inputs_are_kept_in_the_signature():
    graph = Graph("g", (X, input_node("unused", TYPE)), (("y", X.out),))
    assert [node.name for node in graph.inputs] == ["x", "unused"] and graph.nodes == (X,)


def test_constants_are_read_only_and_typed():
    value = constant(np.zeros((2, 3), np.int8))
    assert repr(value.type) == "int8[2x3]"
    with pytest.raises(ValueError, match="read-only"):
        value.array[0, 0] = 1


def test_the_text_of_a_graph():
    split = op("Split", X.out, None, outputs=2, axis=0)
    text = str(Graph("g", (X,), (("y", op("B", split.outputs()[1], constant(np.zeros(1, np.float32))).out),)))
    assert text.splitlines() == [
        "graph g",
        "  %0 = Input() : float32[2xn]  # x",
        "  %1 = Split(%0, -) axis=0 : float32[2xn], float32[2xn]  # Split",
        "  %2 = Constant() : float32[1]  # ",
        "  %3 = B(%1.1, %2) : float32[2xn]  # B",
        "  return y = %3",
    ]


def test_verify_refuses_an_undeclared_input():
    with pytest.raises(RedlineError, match=r"\[after fold\] input 'x' is read but not declared"):
        verify(Graph("g", (), (("y", X.out),)), where="after fold")


def test_verify_refuses_an_output_that_is_not_there():
    graph = Graph("g", (X,), (("y", op("B", Value(op("A", X.out), 1)).out),))
    with pytest.raises(RedlineError, match=r"B\(B\) reads output 1 of A\(A\); it has 1"):
        verify(graph)


def test_verify_refuses_a_graph_output_that_is_not_there():
    with pytest.raises(RedlineError, match=r"'y' is output 1 of A\(A\); it has 1"):
        verify(Graph("g", (X,), (("y", Value(op("A", X.out), 1)),)))


def test_verify_refuses_a_type_that_inference_contradicts():
    graph = Graph("g", (X,), (("y", op("A", X.out).out),))
    verify(graph, lambda node: node.types)
    with pytest.raises(RedlineError, match=r"A\(A\) is typed .*float32.*inference says .*int64"):
        verify(graph, lambda node: (TensorType(dtypes.int64, ()),))
