import numpy as np

from redline.ops import make, make_node
from redline.passes import fold_constants
from tests.passes.checking import arg, check, const, constants, ints, names, unchanged, weights


def test_a_tree_of_constants_becomes_one():
    graph = check(fold_constants.run, make("Add", arg(), make("Mul", make("Exp", const([1.0])), const(2.0))))
    assert names(graph) == ["Add"]
    np.testing.assert_array_equal(constants(graph), [[np.exp(np.float32(1)) * 2]])


def test_every_output_of_a_node_is_folded():
    split = make_node("Split", (weights(4, 6), ints(1, 5)), {"axis": 1})
    graph = check(fold_constants.run, *(make("Add", arg((4, 1)), v) for v in split.outputs()))
    assert names(graph) == ["Add", "Add"]


def test_absent_inputs_do_not_hinder():
    assert names(check(fold_constants.run, make("Add", arg(), make("Clip", const(7.0), None, const(6.0))))) == ["Add"]


def test_what_depends_on_an_input_stays():
    unchanged(fold_constants.run, make("Exp", make("Add", arg(), const(1.0))))


def test_a_small_constant_is_not_blown_up():
    unchanged(fold_constants.run, make("Add", arg((1,)), make("Expand", const(1.0), ints(512, 1024))))
    assert names(check(fold_constants.run, make("Add", arg((1,)), make("Expand", const(1.0), ints(512, 512))))) == ["Add"]


def test_a_large_constant_may_stay_as_large():
    value = make("Transpose", const(np.zeros((600, 1000))), perm=(1, 0))
    assert names(check(fold_constants.run, make("Add", arg((1,)), value))) == ["Add"]


def test_known_shapes_are_constants():
    x = arg((2, 0, 5))
    graph = check(fold_constants.run, make("Shape", x), make("Shape", x, start=-1), make("Size", x))
    assert names(graph) == []
    assert [a.tolist() for a in constants(graph)] == [[2, 0, 5], [5], 0]
