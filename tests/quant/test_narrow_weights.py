"""Weight-only quantization: what a build makes of float models, and MatMulNBits against ONNX Runtime and the interpreter."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import redline
from redline import frontend, ops
from redline.base.errors import BuildError, UnsupportedError
from redline.ops.nbits import weights_of
from redline.ops.registry import view
from redline.quant.weights import narrow_weights, quantized
from tests.quant.models import model

RNG = np.random.default_rng(3)


def two_products(rows: int = 1):
    constants = {
        "w1": RNG.standard_normal((96, 160)).astype(np.float32), "b1": RNG.standard_normal(160).astype(np.float32),
        "w2": RNG.standard_normal((160, 40)).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    return model(nodes, {"x": (rows, 96)}, ["y"], constants)


def nbits_model(k: int, n: int, bits: int, block: int, rows: int, zeros: bool, bias: bool = False, accuracy: int = 0):
    """A MatMulNBits node over random weights."""
    found = quantized(RNG.standard_normal((k, n)).astype(np.float32), bits, block)
    b, scales, packed_zeros = found.packed()
    constants = {"b": b, "s": scales, "z": packed_zeros, "bias": RNG.standard_normal(n).astype(np.float32)}
    inputs = ["x", "b", "s", "z" if zeros else "", "", "bias" if bias else ""]
    inputs = inputs if bias else inputs[: 4 if zeros else 3]
    attrs = {"K": k, "N": n, "bits": bits, "block_size": block, "accuracy_level": accuracy}
    node = helper.make_node("MatMulNBits", inputs, ["y"], "product", domain="com.microsoft", **attrs)
    used = {name: array for name, array in constants.items() if name in inputs}
    graph = helper.make_graph(
        [node], "nbits", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (rows, k))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (rows, n))],
        [numpy_helper.from_array(array, name) for name, array in used.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize(("bits", "largest"), [(8, 0.02), (4, 0.12)])
def test_a_float_model_with_narrow_weights(bits, largest):
    proto = two_products(rows=3)
    narrow = redline.build(proto, precision=f"w{bits}", opt_level=0)
    assert [k.family for k in narrow.header.kernels] == ["nbits", "nbits"]
    feed = {"x": RNG.standard_normal((3, 96)).astype(np.float32)}
    wide = redline.build(proto, opt_level=0).run(feed)["y"]
    got = narrow.run(feed)["y"]
    assert 0 < np.linalg.norm(got - wide) / np.linalg.norm(wide) < largest
    from_graph = narrow_weights(frontend.load(proto), bits)
    assert sum(node.op == "MatMulNBits" for node in from_graph.operations) >= 1


@pytest.mark.parametrize(
    ("bits", "block", "rows", "zeros", "bias"), [(4, 32, 1, True, False), (4, 16, 5, False, False), (8, 64, 2, True, True)]
)
def test_matmul_nbits_answers_like_onnxruntime_and_the_interpreter(bits, block, rows, zeros, bias):
    proto = nbits_model(96, 72, bits, block, rows, zeros, bias)
    feed = {"x": RNG.standard_normal((rows, 96)).astype(np.float32)}
    got = redline.build(proto, opt_level=0).run(feed)["y"]
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (theirs,) = session.run(None, feed)
    (meant,) = ops.run(frontend.load(proto), feed).values()
    scale = np.abs(meant).max()
    assert np.abs(got - meant).max() <= 3e-6 * scale
    assert np.abs(got - theirs).max() <= 2e-5 * scale


def test_packing_comes_back():
    for bits, k in ((4, 70), (8, 64)):
        found = quantized(RNG.standard_normal((k, 33)).astype(np.float32), bits, 32)
        b, scales, zeros = found.packed()
        proto = nbits_model(k, 33, bits, 32, 1, True)
        node = next(node for node in frontend.load(proto).operations if node.op == "MatMulNBits")
        again = weights_of(view(node), b, scales, zeros)
        for name in ("codes", "scales", "zeros"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_what_is_refused():
    with pytest.raises(UnsupportedError, match="8 bits in blocks of a power of two"):
        frontend.load(nbits_model(96, 72, 4, 48, 1, False))
    relu = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 8)}, ["y"], {})
    with pytest.raises(BuildError, match="no matrix product with constant weights"):
        redline.build(relu, precision="w4")
