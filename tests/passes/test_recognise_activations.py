"""Each activation in the spellings of exporters, and formulas that only resemble them."""

import math

import pytest

from redline.ops import make
from redline.passes import recognise_activations
from tests.passes.checking import arg, check, const, names, only, unchanged

run = recognise_activations.run
X = arg()
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -3.0, 6.0, -6.0, 12.0, -12.0, float("nan"), float("inf"), -float("inf"))


def mul(a, b):
    return make("Mul", a, b if not isinstance(b, float) else const(b))


def div(a, b):
    return make("Div", a, const(b))


def add(a, b):
    return make("Add", a, b if not isinstance(b, float) else const(b))


def gelu_spellings(x):
    root = math.sqrt(2)
    gates = [
        make("Erf", div(x, root)),
        make("Erf", mul(x, 1 / root)),
        make("Erf", mul(x, 0.70710677)),
        make("Erf", div(x, 1.4142135)),
    ]
    for gate in gates:
        yield mul(mul(x, add(gate, 1.0)), 0.5)
        yield mul(mul(x, 0.5), add(gate, 1.0))
        yield mul(mul(add(gate, 1.0), 0.5), x)
        yield mul(x, add(mul(gate, 0.5), 0.5))
        yield div(mul(x, make("Add", const(1.0), gate)), 2.0)
        yield mul(const(0.5), mul(x, make("Sub", gate, const(-1.0))))


@pytest.mark.parametrize("which", range(24))
def test_gelu(which):
    graph = check(run, list(gelu_spellings(X))[which], ulps=64, of_largest=True, boundary=SPECIAL)
    assert names(graph) == ["Gelu"]


def cube(x, how):
    return {"pow": make("Pow", x, const(3.0)), "mul": mul(mul(x, x), x), "mul2": mul(x, mul(x, x))}[how]


def tanh_gelu_spellings(x):
    k = math.sqrt(2 / math.pi)
    for how in ("pow", "mul", "mul2"):
        inner = add(x, mul(cube(x, how), 0.044715))
        yield mul(mul(x, 0.5), add(make("Tanh", mul(inner, k)), 1.0))
        yield mul(mul(x, add(make("Tanh", mul(const(0.7978846), inner)), 1.0)), 0.5)
    yield mul(mul(x, 0.5), add(make("Tanh", mul(mul(x, k), add(mul(mul(x, x), 0.044715), 1.0))), 1.0))
    yield mul(x, make("Sigmoid", mul(add(x, mul(cube(x, "mul"), 0.044715)), 2 * k)))


@pytest.mark.parametrize("which", range(8))
def test_gelu_with_tanh(which):
    graph = check(run, list(tanh_gelu_spellings(X))[which], ulps=64, of_largest=True, boundary=SPECIAL)
    assert names(graph) == ["Gelu"] and only(graph, "Gelu").attrs["approximate"] == "tanh"


def test_a_product_as_the_argument_is_still_one_argument():
    x = mul(arg(), arg(name="y"))
    assert names(check(run, mul(mul(x, add(make("Erf", div(x, math.sqrt(2))), 1.0)), 0.5), ulps=64, of_largest=True)) == [
        "Gelu",
        "Mul",
    ]
    half = mul(arg(), 0.5)
    assert names(check(run, mul(half, make("Sigmoid", half)), ulps=4, boundary=SPECIAL)) == ["Mul", "Swish"]


NOT_GELU = {
    "another divisor": lambda x: mul(mul(x, add(make("Erf", div(x, 1.5)), 1.0)), 0.5),
    "a divisor off in the fourth digit": lambda x: mul(mul(x, add(make("Erf", div(x, 1.4144)), 1.0)), 0.5),
    "another offset": lambda x: mul(mul(x, add(make("Erf", div(x, math.sqrt(2))), 1.1)), 0.5),
    "no half": lambda x: mul(x, add(make("Erf", div(x, math.sqrt(2))), 1.0)),
    "another factor": lambda x: mul(mul(arg(name="y"), add(make("Erf", div(x, math.sqrt(2))), 1.0)), 0.5),
    "a sum inside": lambda x: mul(mul(x, add(make("Erf", add(div(x, math.sqrt(2)), 0.1)), 1.0)), 0.5),
    "another cubic": lambda x: mul(mul(x, 0.5), add(make("Tanh", mul(add(x, mul(cube(x, "mul"), 0.0447)), 0.7978846)), 1.0)),
    "a square": lambda x: mul(mul(x, 0.5), add(make("Tanh", mul(add(x, mul(mul(x, x), 0.044715)), 0.7978846)), 1.0)),
    "a broadcast factor": lambda x: mul(mul(arg((2, 3, 17), name="z"), add(make("Erf", div(x, math.sqrt(2))), 1.0)), 0.5),
}


@pytest.mark.parametrize("why", NOT_GELU)
def test_not_gelu(why):
    assert "Gelu" not in names(check(run, NOT_GELU[why](X)))


def test_a_gate_that_is_read_elsewhere_stays():
    gate = make("Erf", div(X, math.sqrt(2)))
    unchanged(run, mul(mul(X, add(gate, 1.0)), 0.5), gate)


def test_swish():
    graph = check(run, mul(X, make("Sigmoid", X)), ulps=2, boundary=SPECIAL)
    assert names(graph) == ["Swish"] and only(graph, "Swish").attrs["alpha"] == 1
    quick = check(run, mul(make("Sigmoid", mul(X, 1.702)), X), ulps=4, boundary=SPECIAL)
    assert only(quick, "Swish").attrs["alpha"] == pytest.approx(1.702)
    by_tanh = check(run, mul(X, add(mul(make("Tanh", mul(X, 0.5)), 0.5), 0.5)), ulps=16, of_largest=True, boundary=SPECIAL)
    assert names(by_tanh) == ["Swish"]


def test_not_swish():
    assert names(check(run, mul(X, make("Sigmoid", add(X, 1.0))))) == ["Add", "Mul", "Sigmoid"]
    assert names(check(run, mul(X, make("Sigmoid", arg(name="y"))))) == ["Mul", "Sigmoid"]
    assert names(check(run, mul(mul(X, 2.0), make("Sigmoid", X)))) == ["Mul", "Mul", "Sigmoid"]
    shared = make("Sigmoid", X)
    unchanged(run, mul(X, shared), shared)


def clip(x, low, high):
    return make("Clip", x, const(low), const(high))


@pytest.mark.parametrize(
    "spelling",
    [
        lambda x: div(mul(x, clip(add(x, 3.0), 0.0, 6.0)), 6.0),
        lambda x: mul(x, div(clip(add(x, 3.0), 0.0, 6.0), 6.0)),
        lambda x: mul(mul(x, clip(add(x, 3.0), 0.0, 6.0)), 0.16666667),
        lambda x: mul(x, make("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
        lambda x: mul(x, clip(add(mul(x, 1 / 6), 0.5), 0.0, 1.0)),
    ],
)
def test_hard_swish(spelling):
    assert names(check(run, spelling(X), ulps=16, of_largest=True, boundary=SPECIAL)) == ["HardSwish"]


@pytest.mark.parametrize(
    "spelling",
    [
        lambda x: div(mul(x, clip(add(x, 2.0), 0.0, 6.0)), 6.0),
        lambda x: div(mul(x, clip(add(x, 3.0), 0.0, 5.0)), 6.0),
        lambda x: div(mul(x, clip(add(x, 3.0), -1.0, 6.0)), 6.0),
        lambda x: mul(x, make("HardSigmoid", x)),
        lambda x: mul(x, make("HardSigmoid", arg(name="y"), alpha=1 / 6, beta=0.5)),
    ],
)
def test_not_hard_swish(spelling):
    assert "HardSwish" not in names(check(run, spelling(X)))


def test_hard_sigmoid():
    graph = check(run, div(clip(add(X, 3.0), 0.0, 6.0), 6.0), ulps=8, of_largest=True, boundary=SPECIAL)
    node = only(graph, "HardSigmoid")
    assert node.attrs["alpha"] == pytest.approx(1 / 6) and node.attrs["beta"] == pytest.approx(0.5)
    assert names(check(run, div(clip(add(X, 3.0), 0.0, 6.0), 5.0))) == ["Add", "Clip", "Div"]


def test_mish():
    assert names(check(run, mul(X, make("Tanh", make("Softplus", X))), ulps=2, boundary=SPECIAL)) == ["Mish"]
    assert "Mish" not in names(check(run, mul(X, make("Tanh", make("Softplus", arg(name="y"))))))


def test_sigmoid():
    below = add(make("Exp", make("Neg", X)), 1.0)
    assert names(check(run, make("Reciprocal", below), ulps=4, boundary=SPECIAL)) == ["Sigmoid"]
    assert names(check(run, make("Div", X, below), ulps=4, boundary=SPECIAL)) == ["Swish"]
    assert names(check(run, make("Reciprocal", add(make("Exp", X), 1.0)), ulps=4, boundary=SPECIAL)) == ["Neg", "Sigmoid"]
    unchanged(run, make("Reciprocal", add(make("Exp", make("Neg", X)), 2.0)))


def test_half_precision_constants_count_as_what_they_round():
    x = arg(dtype="float16")
    gate = make("Erf", make("Div", x, const(math.sqrt(2), "float16")))
    value = make("Mul", make("Mul", x, make("Add", gate, const(1, "float16"))), const(0.5, "float16"))
    assert names(check(run, value, ulps=4, of_largest=True, boundary=SPECIAL)) == ["Gelu"]
