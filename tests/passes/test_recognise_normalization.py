import numpy as np
import pytest

from redline.ops import make
from redline.passes import eliminate_common_subexpressions, recognise_normalization, simplify_arithmetic
from tests.passes.checking import arg, check, const, ints, names, only, weights

TIGHT = {"ulps": 32, "of_largest": True, "boundary": ()}


def run(graph):
    """As in the pipeline: arithmetic settled and equal subexpressions joined before."""
    for step in (simplify_arithmetic, eliminate_common_subexpressions, recognise_normalization):
        graph = step.run(graph)
    return graph


def mean(x, axes=(-1,), keepdims=1):
    return make("ReduceMean", x, ints(*axes), keepdims=keepdims)


def square(x, how):
    return make("Pow", x, const(2.0)) if how == "pow" else make("Mul", x, x)


def root(variance, epsilon=1e-5):
    return make("Sqrt", make("Add", variance, const(epsilon)))


SPELLINGS = {
    "divided": lambda d, v: make("Div", d, root(v)),
    "times reciprocal": lambda d, v: make("Mul", d, make("Reciprocal", root(v))),
    "times one over": lambda d, v: make("Mul", make("Div", const(1.0), root(v)), d),
    "times power": lambda d, v: make("Mul", d, make("Pow", make("Add", v, const(1e-5)), const(-0.5))),
    "divided by power": lambda d, v: make("Div", d, make("Pow", make("Add", const(1e-5), v), const(0.5))),
}


@pytest.mark.parametrize("how", ["pow", "mul"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_layer_normalization(spelling, how):
    x = arg((2, 5, 33))
    first, second = (make("Sub", x, mean(x)) for _ in range(2))
    value = SPELLINGS[spelling](first, mean(square(second, how)))
    value = make("Add", make("Mul", value, weights(33, seed=2)), weights(33, seed=3))
    graph = check(run, value, **TIGHT)
    node = only(graph, "LayerNormalization")
    assert names(graph) == ["LayerNormalization"] and node.attrs["axis"] == 2
    assert node.attrs["epsilon"] == pytest.approx(1e-5) and len(node.inputs) == 3


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_rms_normalization(spelling):
    x = arg((2, 5, 17))
    graph = check(run, make("Mul", weights(17), SPELLINGS[spelling](x, mean(square(x, "pow")))), **TIGHT)
    assert names(graph) == ["RMSNormalization"] and not np.array_equal(
        only(graph, "RMSNormalization").inputs[1].array, np.ones(17)
    )


def test_scale_folded_into_the_reciprocal_and_the_mean_apart():
    x = arg((3, 16))
    m = mean(x)
    d = make("Sub", x, m)
    k = make("Mul", make("Reciprocal", root(mean(square(d, "mul")))), weights(16, seed=2))
    value = make("Add", make("Mul", x, k), make("Sub", weights(16, seed=3), make("Mul", m, k)))
    assert names(check(run, value, **TIGHT)) == ["LayerNormalization"]


def test_several_trailing_axes():
    x = arg((2, 3, 4, 5))
    d = make("Sub", x, mean(x, (2, 3)))
    graph = check(run, make("Mul", make("Div", d, root(mean(square(d, "mul"), (-2, -1)))), weights(4, 5)), **TIGHT)
    assert only(graph, "LayerNormalization").attrs["axis"] == 2


def test_axes_in_the_middle_are_brought_to_the_end():
    x = arg((2, 6, 4, 5))
    d = make("Sub", x, mean(x, (1,)))
    graph = check(run, make("Div", d, root(mean(square(d, "mul"), (1,)))), **TIGHT)
    assert names(graph) == ["LayerNormalization", "Transpose", "Transpose"]


def layer(x, **changed):
    d = changed.get("d") or make("Sub", x, mean(x))
    return make("Div", changed.get("n") or d, root(changed.get("v") or mean(square(d, "mul")), changed.get("epsilon", 1e-5)))


X = arg((3, 16))
WRONG = {
    "the mean of something else": lambda: layer(X, d=make("Sub", X, mean(arg((3, 16), name="y")))),
    "the variance of something else": lambda: layer(X, v=mean(square(make("Sub", X, const(1.0)), "mul"))),
    "another axis for the variance": lambda: layer(X, v=mean(square(make("Sub", X, mean(X)), "mul"), (0,))),
    "another axis for the mean": lambda: layer(X, d=make("Sub", X, mean(X, (0,)))),
    "a large epsilon": lambda: layer(X, epsilon=2.0),
    "a numerator that is not centred": lambda: layer(X, n=X),
    "a sum instead of a mean": lambda: layer(X, v=make("ReduceSum", square(make("Sub", X, mean(X)), "mul"), ints(-1))),
}


@pytest.mark.parametrize("why", WRONG)
def test_what_only_resembles_a_normalization(why):
    graph = check(run, WRONG[why](), **TIGHT)
    assert not {"LayerNormalization"} & set(names(graph))


def test_scale_and_bias_that_do_not_fit_stay_outside():
    x = arg((3, 16))
    norm = make("Div", make("Sub", x, mean(x)), root(mean(square(make("Sub", x, mean(x)), "mul"))))
    by_row = make("Mul", norm, weights(3, 1))
    assert names(check(run, by_row, **TIGHT)) == ["LayerNormalization", "Mul"]
    wider = make("Mul", norm, weights(2, 1, 1))
    assert names(check(run, wider, **TIGHT)) == ["LayerNormalization", "Mul"]
    variable = make("Mul", norm, arg((16,), name="g"))
    assert names(check(run, variable, **TIGHT)) == ["LayerNormalization", "Mul"]
    twice = check(run, make("Mul", norm, weights(16)), norm, **TIGHT)
    assert names(twice) == ["LayerNormalization", "Mul"]


def test_a_scale_of_one_number_or_with_leading_ones_is_taken():
    x = arg((3, 16))
    d = make("Sub", x, mean(x))
    value = make("Mul", make("Mul", make("Div", d, root(mean(square(d, "mul")))), const(2.0)), weights(1, 16))
    assert names(check(run, value, **TIGHT)) == ["LayerNormalization", "Mul"]


def softmax(x, axis=-1, top="ReduceMax", below="ReduceSum"):
    powers = make("Exp", make("Sub", x, make(top, x, ints(axis))))
    return make("Div", powers, make(below, powers, ints(axis)))


def test_softmax():
    graph = check(run, softmax(arg((3, 17)), 0), ulps=4)
    assert names(graph) == ["Softmax"] and only(graph, "Softmax").attrs["axis"] == 0
    assert "Softmax" not in names(check(run, softmax(arg(), top="ReduceMin"), boundary=()))
    assert "Softmax" not in names(check(run, softmax(arg(), below="ReduceMean"), boundary=()))


def instance(x, groups, scale, bias, shape):
    norm = make("InstanceNormalization", make("Reshape", x, ints(*shape)), scale, bias, epsilon=1e-4)
    return make("Reshape", norm, ints(*x.shape))


def test_group_normalization():
    x = arg((2, 6, 3, 4))
    graph = check(run, instance(x, 2, weights(2), weights(2, seed=4), (2, 2, -1)), **TIGHT)
    node = only(graph, "GroupNormalization")
    assert names(graph) == ["GroupNormalization"] and node.attrs["num_groups"] == 2 and node.attrs["epsilon"] == 1e-4


def test_not_group_normalization():
    x = arg((2, 6, 3, 4))
    other = instance(arg((4, 6, 3, 4)), 2, weights(2), weights(2), (2, 2, -1))
    assert "GroupNormalization" not in names(check(run, other, **TIGHT))
    variable = instance(x, 2, arg((2,), name="s"), weights(2), (2, 2, -1))
    assert "GroupNormalization" not in names(check(run, variable, **TIGHT))
