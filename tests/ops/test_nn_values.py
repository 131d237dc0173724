"""Neural network operators at values where arithmetic goes wrong, and against ONNX Runtime where the standard has no case."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from redline import ops
from redline.base import dtypes
from redline.base.errors import ModelError, UnsupportedError
from redline.ir import Graph, TensorType, constant, input_node
from redline.ops import make
from redline.ops.attention_parts import as_products
from redline.ops.registry import view
from redline.passes import decompose
from tests.frontend.models import agree, model, tensor

F32 = np.float32


def _both(op: str, *arrays: np.ndarray | None, **attrs: Any) -> list[np.ndarray]:
    """The first output, whole and taken apart."""
    feeds = {f"x{i}": array for i, array in enumerate(arrays) if array is not None}
    nodes = {name: input_node(name, TensorType(dtypes.from_numpy(a.dtype), a.shape)) for name, a in feeds.items()}
    values = [nodes[f"x{i}"].out if f"x{i}" in nodes else None for i in range(len(arrays))]
    graph = Graph("", tuple(nodes.values()), (("y", make(op, *values, **attrs)),))
    return [ops.run(g, feeds)["y"] for g in (graph, decompose.run(graph, frozenset()))]


def _agree(wanted: np.ndarray, *seen: np.ndarray, rtol: float = 1e-6) -> None:
    for array in seen:
        np.testing.assert_allclose(array, wanted, rtol=rtol)


def test_softmax_of_large_and_infinite_scores() -> None:
    x = np.array([[1000, 999, -np.inf], [-1000, -1000, -1000], [0, np.nan, 1], [np.inf, 0, 0]], F32)
    e = np.exp(F32(-1))
    wanted = np.array([[1 / (1 + e), e / (1 + e), 0], [1 / 3] * 3, [np.nan] * 3, [np.nan, np.nan, np.nan]], F32)
    whole, apart = _both("Softmax", x, axis=-1)
    np.testing.assert_allclose(whole[:3], wanted[:3], rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(apart))
    np.testing.assert_allclose(apart[:2], wanted[:2], rtol=1e-6)
    with np.errstate(divide="ignore"):
        _agree(np.log(wanted[:2]), *_both("LogSoftmax", x[:2], axis=-1), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_of_one_element_and_none(axis: int) -> None:
    for array in _both("Softmax", np.zeros((1, 1), F32), axis=axis):
        assert array.tolist() == [[1]]
    assert _both("Softmax", np.zeros((0, 3), F32), axis=axis)[0].shape == (0, 3)


def test_hardmax_takes_the_first_of_equals() -> None:
    for array in _both("Hardmax", np.array([[1, 3, 3], [2, 2, 2]], F32)):
        assert array.tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("width", [1, 15, 16, 17, 33])
def test_layer_normalization_of_constant_rows(width: int) -> None:
    x = np.full((2, width), 1e4, F32)
    for array in _both("LayerNormalization", x, np.ones(width, F32), np.full(width, 0.5, F32)):
        np.testing.assert_allclose(array, 0.5, atol=1e-3)


def test_normalisations_in_half_precision_do_not_overflow() -> None:
    x = np.array([[300, -300, 200, 100]], np.float16)  # its squares do not fit
    ones = np.ones(4, np.float16)
    wanted = x.astype(F32) / np.sqrt(np.mean(x.astype(F32) ** 2) + 1e-5)
    for array in _both("RMSNormalization", x, ones):
        assert array.dtype == np.float16
        np.testing.assert_allclose(array, wanted, rtol=2e-3)


def test_lp_normalization_of_zeros_is_zero() -> None:
    for p in (1, 2):
        _agree(np.zeros((2, 3)), *_both("LpNormalization", np.zeros((2, 3), F32), p=p))
    with pytest.raises(ModelError, match="LpNormalization with p=3; allowed: 1 and 2"):
        _both("LpNormalization", np.zeros((2, 3), F32), p=3)


def test_batch_normalization_decomposes_into_constants() -> None:
    x = input_node("x", TensorType(dtypes.float32, (1, 3, 4, 4)))
    scale, bias, mean, var = (constant(np.array([1, 2, 3], F32) * k) for k in (1, 2, 3, 4))
    graph = decompose.run(Graph("", (x,), (("y", make("BatchNormalization", x.out, scale, bias, mean, var)),)))
    touching = [node.op for node in graph.operations if any(v is not None and v.shape == (1, 3, 4, 4) for v in node.inputs)]
    assert touching == ["Mul", "Add"]


# --- Quantization

ROUNDED = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 300, -300, np.inf, -np.inf, 0, -0.0], F32)


@pytest.mark.parametrize(
    ("dtype", "zero"), [(np.uint8, 0), (np.uint8, 128), (np.int8, 0), (np.int8, -3), (np.uint16, 7), (np.int16, -5)]
)
def test_quantization_rounds_halves_to_even_and_saturates(dtype: type, zero: int) -> None:
    info = np.iinfo(dtype)
    wanted = np.clip(np.rint(ROUNDED.astype(np.float64)) + zero, info.min, info.max).astype(dtype)
    for array in _both("QuantizeLinear", ROUNDED, np.array(1, F32), np.array(zero, dtype)):
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize(
    ("params", "attrs"),
    [
        ((), {}), ((4,), {"axis": 1}), ((4,), {"axis": -2}), ((3, 2, 5), {"axis": 1, "block_size": 3}),
        ((3, 4, 2), {"axis": 2, "block_size": 3}),
    ],
)  # fmt: skip
def test_quantization_there_and_back(params: tuple[int, ...], attrs: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-4, 4, (3, 4, 5)).astype(F32)
    scale, zero = rng.uniform(0.05, 0.06, params).astype(F32), rng.integers(-10, 10, params).astype(np.int8)
    whole, apart = _both("QuantizeLinear", x, scale, zero, **attrs)
    np.testing.assert_array_equal(whole, apart)
    for back in _both("DequantizeLinear", whole, scale, zero, **attrs):
        np.testing.assert_allclose(back, x, atol=0.031)


def test_scales_must_fit() -> None:
    x = np.zeros((3, 4), F32)
    with pytest.raises(ModelError, match="scales 3 over axis 1 of 3x4; one scale, or one an index of the axis"):
        _both("QuantizeLinear", x, np.ones(3, F32), np.zeros(3, np.int8))
    with pytest.raises(ModelError, match="scales 4, zero points scalar; they have one shape"):
        _both("QuantizeLinear", x, np.ones(4, F32), np.array(0, np.int8))
    with pytest.raises(UnsupportedError, match="quantization to float32; allowed: uint8, int8, uint16, int16"):
        _both("QuantizeLinear", x, np.ones(4, F32), output_dtype=TensorProto.FLOAT)


def test_dynamic_quantization_of_zeros() -> None:
    for array in _both("DynamicQuantizeLinear", np.zeros((2, 3), F32)):
        assert not array.any()


def test_quantized_products_against_onnx_runtime() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (1, 4, 9, 7)).astype(np.uint8), rng.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
    weights = {
        "xs": np.array(0.02, F32), "xz": np.array(120, np.uint8), "w": w, "ws": rng.uniform(0.001, 0.01, 6).astype(F32),
        "wz": np.zeros(6, np.int8), "ys": np.array(0.05, F32), "yz": np.array(100, np.uint8),
        "b": rng.integers(-1000, 1000, 6).astype(np.int32),
    }  # fmt: skip
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], pads=[1, 1, 1, 1])
    agree(model([node], [tensor("x", x.shape, TensorProto.UINT8)], ["y"], initializers=weights), {"x": x})
    a = rng.integers(0, 256, (5, 16)).astype(np.uint8)
    b = {"b": rng.integers(-127, 128, (16, 33)).astype(np.int8), "az": np.array(7, np.uint8), "bz": np.array(3, np.int8)}
    node = helper.make_node("MatMulInteger", ["a", "b", "az", "bz"], ["y"])
    agree(model([node], [tensor("a", a.shape, TensorProto.UINT8)], ["y"], initializers=b), {"a": a})


# --- Attention


def test_a_query_that_sees_no_key_answers_zeros() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 2, 3, 4)).astype(F32) for _ in range(3))
    mask = np.array([[True, True, False], [False, False, False], [True, True, True]])
    for array in _both("Attention", q, k, v, mask):
        assert not array[:, :, 1].any() and np.isfinite(array).all() and array[:, :, 0].any()


@pytest.mark.parametrize("keys", [3, 5])
def test_causal_attention_sees_no_later_key(keys: int) -> None:
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, 2, 4, 8)).astype(F32)
    k, v = (rng.standard_normal((1, 2, keys, 8)).astype(F32) for _ in range(2))
    (whole, apart) = _both("Attention", q, k, v, is_causal=1)
    _agree(whole, apart)
    np.testing.assert_allclose(whole[:, :, 0], v[:, :, 0], rtol=1e-5)


def test_attention_as_products_is_attention() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((2, 3, n, 8)).astype(F32) for n in (5, 7, 7)]
    mask = rng.standard_normal((5, 7)).astype(F32)
    nodes = [input_node(f"x{i}", TensorType(dtypes.float32, a.shape)) for i, a in enumerate([*arrays, mask])]
    whole = make("Attention", *(node.out for node in nodes), scale=0.3)
    feeds = {f"x{i}": a for i, a in enumerate([*arrays, mask])}
    both = Graph("", tuple(nodes), (("a", whole), ("b", as_products(view(whole.node)))))
    seen = ops.run(both, feeds)
    np.testing.assert_allclose(seen["a"], seen["b"], rtol=1e-5, atol=1e-6)


# --- Pictures


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("aligned", [0, 1])
def test_grid_sample_against_onnx_runtime(mode: str, padding: str, aligned: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 5, 7)).astype(F32)
    grid = {"g": rng.uniform(-1.4, 1.4, (2, 4, 3, 2)).astype(F32)}
    node = helper.make_node("GridSample", ["x", "g"], ["y"], mode=mode, padding_mode=padding, align_corners=aligned)
    agree(model([node], [tensor("x", x.shape)], ["y"], initializers=grid, opset=20), {"x": x}, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("transform", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
def test_resize_against_onnx_runtime(mode: str, transform: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 15, 17)).astype(F32)
    node = helper.make_node("Resize", ["x", "", "", "n"], ["y"], mode=mode, coordinate_transformation_mode=transform)
    for size in ((31, 33), (7, 16), (1, 17)):
        sizes = {"n": np.array([1, 2, *size])}
        agree(model([node], [tensor("x", x.shape)], ["y"], initializers=sizes, opset=19), {"x": x}, rtol=1e-4, atol=1e-5)


def test_resize_that_copies_keeps_every_type_and_not_a_number() -> None:
    x = np.array([[[[1, np.nan], [np.inf, -0.0]]]], F32)
    scales = constant(np.array([1, 1, 2, 2], F32))
    node = input_node("x", TensorType(dtypes.float32, x.shape))
    graph = Graph("", (node,), (("y", make("Resize", node.out, None, scales, mode="nearest")),))
    for g in (graph, decompose.run(graph, frozenset())):
        np.testing.assert_array_equal(ops.run(g, {"x": x})["y"], x.repeat(2, 2).repeat(2, 3))
