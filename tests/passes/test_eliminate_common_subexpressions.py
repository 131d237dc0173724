import numpy as np

from redline.ops import make, make_node
from redline.passes import eliminate_common_subexpressions as cse
from tests.passes.checking import arg, check, const, constants, histogram, ints, names


def test_equal_chains_become_one():
    x = arg()
    chains = [make("Exp", make("Add", make("Neg", x), const(2.0))) for _ in range(3)]
    assert names(check(cse.run, make("Add", chains[0], chains[1]), chains[2])) == ["Add", "Add", "Exp", "Neg"]


def test_equal_constants_become_one_bit_by_bit():
    x = arg((1,))
    pieces = [[0.0], [-0.0], [np.nan], [np.nan], [0.0], [1.0]]
    graph = check(cse.run, *(make("Add", x, const(piece)) for piece in pieces))
    assert len(constants(graph)) == 4 and histogram(graph)["Add"] == 4


def test_equal_bytes_of_other_types_and_shapes_differ():
    zeros = [const(0.0), const([0.0]), const(0, "int32"), const([[0.0]])]
    graph = check(cse.run, *(make("Identity", zero) for zero in zeros))
    assert len(constants(graph)) == 4


def test_large_constants_that_differ_in_one_unsampled_element_differ():
    a, b = np.zeros(1000), np.zeros(1000)
    b[1] = 1
    assert len(constants(check(cse.run, make("Add", const(a), const(b)), make("Neg", const(a))))) == 2


def test_attributes_tell_nodes_apart():
    x = arg((4, 4))
    pair = [make("LeakyRelu", x, alpha=0.1), make("LeakyRelu", x, alpha=0.2), make("LeakyRelu", x, alpha=0.1)]
    assert names(check(cse.run, *pair)) == ["LeakyRelu", "LeakyRelu"]


def test_nodes_of_several_outputs_merge_output_by_output():
    x = arg((4, 6))
    a, b = (make_node("Split", (x, ints(2, 4)), {"axis": 1}) for _ in range(2))
    graph = check(cse.run, make("Neg", a.outputs()[0]), make("Neg", b.outputs()[1]), make("Neg", b.outputs()[0]))
    assert names(graph) == ["Neg", "Neg", "Split"]


def test_the_order_of_inputs_counts():
    x, y = arg(name="x"), arg(name="y")
    assert names(check(cse.run, make("Sub", x, y), make("Sub", y, x))) == ["Sub", "Sub"]
