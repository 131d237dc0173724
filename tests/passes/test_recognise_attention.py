import numpy as np
import pytest

from redline.ops import make
from redline.passes import recognise_attention, simplify_movement
from tests.passes.checking import arg, check, const, ints, names, only

B, H, S, T, D = 2, 3, 5, 7, 8
TIGHT = {"ulps": 64, "of_largest": True, "boundary": ()}
LOWEST = float(np.finfo(np.float32).min)


def run(graph):
    return simplify_movement.run(recognise_attention.run(graph))


def q(*shape):
    return arg(shape or (B, H, S, D), name="q")


def k(*shape):
    return arg(shape or (B, H, T, D), name="k")


def v(*shape):
    return arg(shape or (B, H, T, D), name="v")


def swapped(x):
    return make("Transpose", x, perm=(*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2))


def mul(x, c):
    return make("Mul", x, const(c))


def softmax(x):
    return make("Softmax", x, axis=-1)


def attention(scores, values=None):
    return make("MatMul", softmax(scores), values or v())


def plain():
    return make("MatMul", q(), swapped(k()))


def node_of(value, **changed):
    graph = check(run, value, **{**TIGHT, **changed})
    node = only(graph, "Attention")
    assert not {"MatMul", "Softmax"} & set(names(graph))
    return node, graph


SCALINGS = {
    "none": (lambda: plain(), 1.0),
    "times": (lambda: mul(plain(), 0.25), 0.25),
    "divided": (lambda: make("Div", plain(), const(4.0)), 0.25),
    "query": (lambda: make("MatMul", mul(q(), 0.25), swapped(k())), 0.25),
    "query divided": (lambda: make("MatMul", make("Div", q(), const(4.0)), swapped(k())), 0.25),
    "roots on both": (lambda: make("MatMul", mul(q(), 0.5), mul(swapped(k()), 0.5)), 0.25),
    "below the transpose": (lambda: make("MatMul", q(), swapped(mul(k(), 0.25))), 0.25),
    "in two steps": (lambda: mul(mul(plain(), 0.5), 0.5), 0.25),
}


@pytest.mark.parametrize("how", SCALINGS)
def test_scalings(how):
    scores, scale = SCALINGS[how]
    node, graph = node_of(attention(scores()))
    assert node.attrs["scale"] == pytest.approx(scale) and "Mul" not in names(graph) and "Div" not in names(graph)
    assert len(node.inputs) == 3 and not node.attrs.get("is_causal", 0)


def test_keys_that_were_never_transposed_back_are_transposed():
    _, graph = node_of(attention(mul(make("MatMul", q(), arg((B, H, D, T), name="k")), 0.25)))
    assert names(graph) == ["Attention", "Transpose"]


def test_heads_split_by_the_exporter_merge_into_one_view():
    x, y = arg((B, S, H * D), name="x"), arg((B, T, H * D), name="y")
    query = make("Transpose", make("Reshape", x, ints(B, S, H, D)), perm=(0, 2, 1, 3))
    key = make("Transpose", make("Reshape", y, ints(B, T, H, D)), perm=(0, 2, 3, 1))
    _, graph = node_of(attention(make("Div", make("MatMul", query, key), const(2.8)), v()))
    assert [n.attrs["perm"] for n in graph.nodes if n.op == "Transpose"] == [(0, 2, 1, 3)] * 2


@pytest.mark.parametrize("shape", [(B, 1, 1, T), (1, 1, S, T), (B, H, S, T), (S, T), (T,), (H, 1, T)])
def test_additive_masks(shape):
    mask = arg(shape, name="mask")
    node, _ = node_of(attention(make("Add", mul(plain(), 0.25), mask)))
    assert node.inputs[3].shape == (1,) * (4 - len(shape)) + shape
    node_of(attention(make("Add", mask, mul(plain(), 0.25))))


def test_masks_in_any_place():
    a, b = arg((1, 1, S, T), name="a"), arg((B, 1, 1, T), name="b")
    node, graph = node_of(attention(make("Add", make("Add", plain(), a), b)))
    assert names(graph).count("Add") == 1 and len(node.inputs) == 4
    node_of(attention(mul(make("Add", plain(), a), 0.5)))


@pytest.mark.parametrize("fill", [-np.inf, LOWEST, -1e9, -1e4])
@pytest.mark.parametrize("where_true", [True, False])
def test_masks_by_selection(fill, where_true):
    condition = arg((B, 1, 1, T), dtype="bool", name="m")
    branches = (const(fill), plain()) if where_true else (plain(), const(fill))
    node, _ = node_of(attention(make("Where", condition, *branches)))
    assert (node.inputs[3].dtype.name == "bool") is (fill == -np.inf)


def test_an_additive_mask_of_minus_infinity_is_boolean():
    condition = arg((B, 1, S, T), dtype="bool", name="m")
    mask = make("Where", condition, const(0.0), const(-np.inf))
    node, _ = node_of(attention(make("Add", plain(), mask)))
    assert node.inputs[3] == condition


def test_a_row_hidden_whole_by_finite_numbers_stays_uniform():
    hidden = np.zeros((1, 1, S, T), bool)
    hidden[..., 2, :] = True
    condition = make("And", const(hidden, "bool"), arg((B, 1, 1, 1), dtype="bool", name="m"))
    node_of(attention(make("Where", condition, const(-1e9), plain())))


def test_guards_against_nan_go():
    condition = arg((B, 1, S, T), dtype="bool", name="m")
    mask = make("Where", make("And", condition, const(np.arange(S)[:, None] > 1, "bool")), const(0.0), const(-np.inf))
    p = softmax(make("Add", plain(), mask))
    value = make("MatMul", make("Where", make("IsNaN", p), const(0.0), p), v())
    assert "Where" not in names(node_of(value)[1])


def test_constant_masks():
    causal = np.triu(np.full((S, S), -np.inf), 1)
    scores = make("MatMul", q(), swapped(k(B, H, S, D)))
    for mask in (causal, np.triu(np.full((1, 1, S, S), LOWEST), 1)):
        node, _ = node_of(attention(make("Add", scores, const(mask)), v(B, H, S, D)))
        assert node.attrs["is_causal"] == 1 and len(node.inputs) == 3
    node, _ = node_of(attention(make("Add", plain(), const(np.zeros((S, T))))))
    assert len(node.inputs) == 3 and not node.attrs.get("is_causal", 0)
    for mask in (causal + np.eye(S) * 0.5, np.triu(np.full((S, S), -50.0), 1), np.triu(np.full((S, S), -np.inf), 2)):
        node, _ = node_of(attention(make("Add", scores, const(mask)), v(B, H, S, D)))
        assert not node.attrs.get("is_causal", 0) and len(node.inputs) == 4


def test_oblong_causal_masks_stay_masks():
    node, _ = node_of(attention(make("Add", plain(), const(np.triu(np.full((S, T), -np.inf), 1)))))
    assert len(node.inputs) == 4


def test_three_axes_become_four():
    scores = make("MatMul", q(B * H, S, D), swapped(k(B * H, T, D)))
    node, graph = node_of(attention(make("Add", scores, arg((B * H, 1, T), name="mask")), v(B * H, T, D)))
    assert node.inputs[0].shape == (1, B * H, S, D) and node.inputs[3].shape == (1, B * H, 1, T)
    assert graph.outputs[0][1].shape == (B * H, S, D)


def test_shifted_windows():
    windows = 3
    shape = (B * windows, H, S, S)
    scores = make("MatMul", q(B * windows, H, S, D), swapped(k(B * windows, H, S, D)))
    bias = arg((1, H, S, S), name="bias")
    seen = make("Reshape", make("Add", scores, bias), ints(B, windows, H, S, S))
    masked = make("Add", seen, arg((1, windows, 1, S, S), name="mask"))
    node_of(attention(make("Reshape", masked, ints(*shape)), v(B * windows, H, S, D)))


NOT_ATTENTION = {
    "softmax along another axis": lambda: [make("MatMul", make("Softmax", plain(), axis=2), v())],
    "probabilities as an output": lambda: [make("MatMul", p := softmax(plain()), v()), p],
    "scores as an output": lambda: [attention(s := plain()), s],
    "scaled scores as an output": lambda: [attention(s := mul(plain(), 0.5)), s],
    "a scale by element": lambda: [attention(make("Mul", plain(), arg((1, 1, S, T), name="mask")))],
    "keys shared by heads": lambda: [attention(make("MatMul", q(), swapped(k(B, 1, T, D))), v())],
    "a mask that widens": lambda: [attention(make("Add", plain(), arg((2, 1, 1, S, T), name="m")), v())],
    "a selection that hides nothing": lambda: [attention(make("Where", arg((S, T), "bool", name="m"), plain(), const(-5.0)))],
    "a guard with another value": lambda: [
        make("MatMul", make("Where", make("IsNaN", p := softmax(plain())), const(1.0), p), v())
    ],
    "no softmax": lambda: [make("MatMul", make("Sigmoid", plain()), v())],
    "no product": lambda: [attention(arg((B, H, S, T), name="s"))],
}


@pytest.mark.parametrize("why", NOT_ATTENTION)
def test_not_attention(why):
    assert "Attention" not in names(check(run, *NOT_ATTENTION[why](), **TIGHT))
