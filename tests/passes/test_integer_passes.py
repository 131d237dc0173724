"""Quantization moves to where bytes are least, pairs cancel, and products become integer products: same answers throughout."""

import numpy as np
import pytest

from redline.base import dtypes
from redline.ir import constant
from redline.ops import make, make_node
from redline.passes import bound_rounding, fold_requantization, integer_products, propagate_quantization
from redline.quant import FP8, INT8, Tensor
from tests.passes.checking import arg, check, histogram, names, unchanged

S, Z = 0.05, 100


def number(value, kind="float32"):
    return constant(np.array(value, dtypes.from_name(kind).numpy))


def q(x, scale=S, zero=Z, kind="uint8"):
    return make("QuantizeLinear", x, number(scale), number(zero, kind))


def dq(x, scale=S, zero=Z, kind="uint8"):
    return make("DequantizeLinear", x, number(scale), number(zero, kind))


def ints(*values):
    return constant(np.array(values, np.int64))


def u8(*shape, name="x"):
    return arg(shape, "uint8", name)


MOVES = [
    lambda x: make("Reshape", x, ints(6, 4)),
    lambda x: make("Transpose", x, perm=(1, 0)),
    lambda x: make("Slice", x, ints(1), ints(3), ints(0)),
    lambda x: make("Gather", x, ints(2, 0), axis=0),
    lambda x: make("Pad", x, ints(1, 0, 0, 2)),
    lambda x: make("Concat", x, x, axis=0),
]


@pytest.mark.parametrize("move", MOVES)
def test_dequantization_sinks_through_what_moves_bytes(move):
    graph = check(propagate_quantization.run, q(move(dq(u8(4, 6)))))
    assert "DequantizeLinear" not in names(graph) and "QuantizeLinear" not in names(graph)


def test_a_pool_takes_bytes():
    pool = make_node("MaxPool", (dq(u8(1, 2, 5, 5)),), {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}, num_outputs=1).out
    assert names(check(propagate_quantization.run, q(pool))) == ["MaxPool"]


def test_an_average_is_taken_of_bytes():
    pool = make_node("AveragePool", (dq(u8(1, 2, 6, 6)),), {"kernel_shape": (2, 2)}, num_outputs=1).out
    graph = check(propagate_quantization.run, pool, ulps=16, of_largest=True)
    assert histogram(graph)["Cast"] == 1 and "DequantizeLinear" not in names(graph)


def test_other_steps_do_not_cancel():
    unchanged(propagate_quantization.run, q(dq(u8(3, 4)), 0.06))
    unchanged(propagate_quantization.run, q(dq(u8(3, 4)), zero=101))


def test_parts_of_a_concatenation_are_requantized_apart():
    graph = check(propagate_quantization.run, q(make("Concat", dq(u8(2, 3)), dq(u8(2, 3, name="y"), 0.1), axis=0)))
    assert histogram(graph) == {"Concat": 1, "DequantizeLinear": 1, "QuantizeLinear": 1}


def test_the_range_of_bytes_does_what_relu_does():
    assert names(check(propagate_quantization.run, q(make("Relu", arg((3, 5))), zero=0), boundary=(0.0, -1.0, 5.0))) == [
        "QuantizeLinear"
    ]
    assert "Relu" in names(check(propagate_quantization.run, q(make("Relu", arg((3, 5)))), boundary=(0.0, -1.0, 5.0)))


def test_signed_activations_become_unsigned():
    signed = make("QuantizeLinear", arg((3, 5)), number(S), number(-3, "int8"))
    graph = check(propagate_quantization.run, dq(signed, S, -3, "int8"), boundary=(0.0, -1.0, 500.0, -500.0))
    kinds = {node.types[0].dtype.name for node in graph.operations if node.op == "QuantizeLinear"}
    assert kinds == {"uint8"}


def test_activations_become_signed_for_tensor_cores():
    stored = q(arg((3, 5)))
    graph = check(lambda g: propagate_quantization.run(g, signed=True), dq(stored), boundary=(0.0, -1.0, 500.0, -500.0))
    kinds = {node.types[0].dtype.name for node in graph.operations if node.op == "QuantizeLinear"}
    assert kinds == {"int8"}


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-4.0, 2.0), (0.0, 0.5), (0.0, 0.0)])
def test_signed_steps_lie_around_zero(low: float, high: float):
    scale, zero = INT8.steps(Tensor(low, high, None, None))
    assert zero == 0 and zero.dtype == np.int8
    assert np.rint(max(-low, high) / scale) in (127, 0)


def test_floats_hold_the_largest_that_was_seen():
    """What calibrators cut off for the sake of even steps costs floats nothing."""
    scale, zero = FP8.steps(Tensor(-1.0, 2.0, peak=7.0))
    assert zero == 0 and zero.dtype == dtypes.float8_e4m3fn.numpy and np.float32(7) / scale == 448
    assert FP8.steps(Tensor(-3.0, 2.0))[0] == np.float32(3 / 448)


RNG = np.random.default_rng(0)


def weights(*shape, kind=np.int8):
    info = np.iinfo(kind)
    return constant(RNG.integers(info.min + 1, info.max, shape, dtype=kind, endpoint=True))


@pytest.mark.parametrize(("kind", "zero"), [("int8", 0), ("uint8", 128), ("uint8", 90)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_of_bytes(kind, zero, bias):
    w = weights(4, 3, 3, 3, kind=dtypes.from_name(kind).numpy)
    b = constant(RNG.standard_normal(4).astype(np.float32)) if bias else None
    y = make("Conv", dq(u8(1, 3, 6, 6)), dq(w, 0.01, zero, kind), b, pads=(1, 1, 1, 1))
    graph = check(integer_products.run, y, ulps=64, of_largest=True)
    assert histogram(graph)["Conv"] == 0 and histogram(graph)["ConvInteger"] in (1, 2)


@pytest.mark.parametrize(("kind", "zero"), [("int8", 0), ("uint8", 128), ("uint8", 90)])
def test_a_product_with_constant_bytes(kind, zero):
    w = weights(7, 5, kind=dtypes.from_name(kind).numpy)
    graph = check(integer_products.run, make("MatMul", dq(u8(2, 4, 7)), dq(w, 0.01, zero, kind)), ulps=64, of_largest=True)
    assert histogram(graph)["MatMul"] == 0


def test_a_product_of_two_activations():
    b = make("QuantizeLinear", arg((7, 5), name="b"), number(S), number(Z, "uint8"))
    y = make("MatMul", dq(u8(4, 7)), dq(b))
    graph = check(integer_products.run, y, ulps=64, of_largest=True, boundary=(0.0, 1.0, -2.0))
    assert histogram(graph)["MatMul"] == 0 and histogram(graph)["MatMulInteger"] == 3


def test_scales_join_the_constants_before_them():
    x = make("Mul", arg((3, 5)), number(0.25))
    graph = check(fold_requantization.run, q(make("Relu", x), 0.5, 0), boundary=(0.0, -1.0, 5.0))
    assert histogram(graph) == {"Mul": 1, "Relu": 1, "QuantizeLinear": 1}
    (node,) = (node for node in graph.operations if node.op == "QuantizeLinear")
    assert node.inputs[1].array == 1


def test_parameters_that_are_no_constants_become_arithmetic():
    graph = check(
        fold_requantization.run,
        make("QuantizeLinear", arg((3, 5)), make("Abs", arg((), name="s")), number(3, "uint8")),
        boundary=(),
    )
    assert "QuantizeLinear" not in names(graph)


def rounded(total, scale):
    return make(
        "QuantizeLinear", make("Mul", make("Cast", total, to=dtypes.float32.onnx), number(scale)), number(1), number(0, "uint8")
    )


def test_a_rounding_is_bounded_by_the_weights():
    weights = constant(np.full((6, 3), -2, np.int8))
    total = make("MatMulInteger", u8(4, 6), weights)
    assert bound_rounding.bound(total) == 255 * 2 * 6
    graph = check(bound_rounding.run, rounded(total, 0.01))
    assert graph.outputs[0][1].node.attrs["bounded"] == 1


def test_large_or_unknown_roundings_are_not_bounded():
    total = make("MatMulInteger", u8(4, 6), constant(np.full((6, 3), 127, np.int8)))
    unchanged(bound_rounding.run, rounded(total, 1e4))
    unchanged(bound_rounding.run, make("QuantizeLinear", arg((4, 6)), number(1), number(0, "uint8")))
    unchanged(bound_rounding.run, rounded(make("MatMulInteger", u8(4, 6), arg((6, 3), "int8", "w")), 0.01))
