"""Reshapes behind elementwise operators: where they move, and where they must stay."""

from checking import arg, check, const, ints, names, unchanged, weights

from redline.ops import make
from redline.passes.sink_reshapes import run


def test_a_reshape_moves_behind_unary_operators_and_numbers():
    x = make("Reshape", arg((4, 15)), ints(4, 3, 5))
    graph = check(run, make("Mul", make("Sigmoid", x), const(3.0)))
    assert [node.op for node in graph.operations] == ["Sigmoid", "Mul", "Reshape"]


def test_it_stays_before_an_operand_of_its_own_shape():
    unchanged(run, make("Add", make("Reshape", arg((4, 15)), ints(4, 3, 5)), weights(3, 5)))


def test_it_stays_where_others_read_it():
    x = make("Reshape", arg((4, 15)), ints(4, 3, 5))
    unchanged(run, make("Sigmoid", x), make("Transpose", x, perm=(0, 2, 1)))


def test_a_number_that_adds_axes_keeps_it():
    x = make("Reshape", arg((4, 15)), ints(60))
    assert names(check(run, make("Add", x, const([[1.0]])))) == ["Add", "Reshape"]


def test_an_expand_moves_behind_what_computes_its_copies():
    wide = make("Expand", arg((1, 1, 9), "bool"), ints(4, 7, 9))
    graph = check(run, make("Where", wide, const(0.0), const(-1e9)))
    assert [node.op for node in graph.operations] == ["Where", "Expand"]
