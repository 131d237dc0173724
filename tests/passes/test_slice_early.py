"""Slices in front of what works on rows and elements for itself: where they move, and where they must stay."""

import pytest
from checking import arg, check, const, ints, only, unchanged, weights

from redline.ops import make, make_node
from redline.passes.slice_early import run


def cut(value, axis, start=0, end=1, step=1):
    return make("Slice", value, ints(start), ints(end), ints(axis), ints(step))


def test_the_last_layer_of_a_classifier_is_computed_for_its_first_token():
    x = make("Neg", arg((2, 7, 16)))
    hidden = make("Gelu", make("Add", make("MatMul", x, weights(16, 32)), weights(32)), approximate="none")
    y = make("Add", x, make("MatMul", hidden, weights(32, 16, seed=2)))
    y = make_node("LayerNormalization", [y, weights(16, seed=3), weights(16, seed=4)], {"axis": -1}, num_outputs=1).out
    graph = check(run, cut(y, 1))
    assert only(graph, "LayerNormalization").out.shape == (2, 1, 16)
    assert only(graph, "Neg").out.shape == (2, 1, 16)
    assert [node.out.shape for node in graph.operations if node.op == "MatMul"] == [(2, 1, 32), (2, 1, 16)]


def test_queries_that_nothing_reads_do_not_attend():
    q, k, v = (arg((2, 3, 7, 8), name=name) for name in "qkv")
    y = make_node("Attention", [q, k, v], {"scale": 0.5}, num_outputs=1).out
    y = make("Reshape", make("Transpose", y, perm=(0, 2, 1, 3)), ints(2, 7, 24))
    assert only(check(run, cut(y, 1, 2, 6, 3)), "Attention").out.shape == (2, 3, 2, 8)


def test_causal_queries_keep_their_places():
    q, k, v = (arg((2, 3, 7, 8), name=name) for name in "qkv")
    unchanged(run, cut(make_node("Attention", [q, k, v], {"scale": 0.5, "is_causal": 1}, num_outputs=1).out, 2))


def test_a_broadcast_operand_is_cut_only_where_it_is_long():
    graph = check(run, cut(make("Mul", make("Add", arg((4, 5)), weights(4, 1)), weights(5)), 1, 1, 4))
    assert only(graph, "Mul").out.shape == (4, 3)


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_are_cut_and_columns_are_not(axis: int):
    y = make("Softmax", arg((4, 5)), axis=-1)
    graph = check(run, cut(y, axis, 1, 3))
    assert only(graph, "Softmax").out.shape == ((2, 5) if axis == 0 else (4, 5))


def test_it_stays_where_others_read_the_whole():
    y = make("Sigmoid", arg((4, 5)))
    unchanged(run, cut(y, 0), make("Neg", y))


def test_backward_slices_and_columns_of_a_product_stay():
    unchanged(run, make("Slice", make("Sigmoid", arg((4, 5))), ints(-1), ints(-5), ints(0), ints(-1)))
    unchanged(run, cut(make("MatMul", arg((4, 5)), weights(5, 6)), 1))


def test_a_number_stays_whole():
    assert only(check(run, cut(make("Add", arg((4, 5)), const(2.0)), 0)), "Add").out.shape == (1, 5)
