"""Windows, layouts and the errors of convolutions and pools; strange windows against ONNX Runtime."""

import itertools
from typing import Any

import numpy as np
import pytest
from onnx import helper

from redline import ops
from redline.base.dtypes import float32
from redline.base.errors import ModelError
from redline.base.shapes import Sym
from redline.ir import TensorType, Value, constant, input_node
from redline.ops import Op, Window, explicit_window, make, make_node
from tests.frontend.models import agree, model, tensor

RNG = np.random.default_rng(0)


def _value(*shape: Any) -> Value:
    return input_node("x", TensorType(float32, shape)).out


def _weights(*shape: int) -> Value:
    return constant(RNG.standard_normal(shape).astype(np.float32))


def _window(op: str, size: tuple[int, ...], kernel: tuple[int, ...], **attrs: Any) -> Window:
    x = _value(1, 2, *size)
    weights = [_weights(2, 2, *kernel)] if op.startswith("Conv") else []
    return explicit_window(Op(op, [x, *weights], attrs | ({} if weights else {"kernel_shape": kernel})))


@pytest.mark.parametrize(
    ("window", "wanted"),
    [
        (_window("Conv", (7,), (3,)), Window((3,), (1,), (1,), (0,), (0,), (5,))),
        (_window("Conv", (7,), (3,), pads=(1, 2), strides=(2,), dilations=(2,)), Window((3,), (2,), (2,), (1,), (2,), (3,))),
        (_window("Conv", (6,), (4,), auto_pad="SAME_UPPER"), Window((4,), (1,), (1,), (1,), (2,), (6,))),
        (_window("Conv", (6,), (4,), auto_pad="SAME_LOWER"), Window((4,), (1,), (1,), (2,), (1,), (6,))),
        (_window("Conv", (6,), (3,), auto_pad="VALID", pads=(9, 9)), Window((3,), (1,), (1,), (0,), (0,), (4,))),
        (_window("MaxPool", (6,), (3,), strides=(2,)), Window((3,), (2,), (1,), (0,), (0,), (2,))),
        (_window("MaxPool", (6,), (3,), strides=(2,), ceil_mode=1), Window((3,), (2,), (1,), (0,), (0,), (3,))),
        # the fourth window would start in the padding after the input: there is none
        (_window("MaxPool", (6,), (2,), strides=(3,), pads=(1, 1), ceil_mode=1), Window((2,), (3,), (1,), (1,), (1,), (3,))),
        (_window("MaxPool", (5,), (2,), strides=(5,), pads=(0, 1), ceil_mode=1), Window((2,), (5,), (1,), (0,), (1,), (1,))),
        (_window("ConvTranspose", (4,), (3,), strides=(2,)), Window((3,), (2,), (1,), (0,), (0,), (9,))),
        (
            _window("ConvTranspose", (4,), (3,), strides=(2,), pads=(1, 1), output_padding=(1,)),
            Window((3,), (2,), (1,), (1,), (1,), (8,)),
        ),
        (_window("ConvTranspose", (4,), (3,), strides=(2,), auto_pad="SAME_UPPER"), Window((3,), (2,), (1,), (0,), (1,), (8,))),
        (_window("ConvTranspose", (4,), (3,), strides=(2,), output_shape=(8,)), Window((3,), (2,), (1,), (1,), (0,), (8,))),
    ],
)
def test_padding_is_settled(window: Window, wanted: Window) -> None:
    assert window == wanted


@pytest.mark.parametrize(
    ("op", "attrs", "message"),
    [
        ("Conv", {"kernel_shape": (5,)}, "a kernel of shape (5,) over 1 spatial axes; weights of shape (3,)"),
        ("Conv", {"strides": (0,)}, "strides (0,); allowed: 1 numbers from 1"),
        ("Conv", {"strides": (1, 1)}, "strides (1, 1); allowed: 1 numbers from 1"),
        ("Conv", {"pads": (-1, 0)}, "pads (-1, 0); allowed: 2 numbers from 0"),
        ("Conv", {"dilations": (9,)}, "a window spanning 19 elements; the padded input has 7"),
        ("MaxPool", {"auto_pad": "SAME"}, "auto_pad 'SAME'; allowed: NOTSET, VALID, SAME_UPPER, SAME_LOWER"),
        ("ConvTranspose", {"pads": (9, 9)}, "pads cut off more than there is"),
    ],
)
def test_windows_that_cannot_slide(op: str, attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as error:
        _window(op, (7,), (3,), **attrs)
    assert message in str(error.value)


def test_weights_must_fit_the_data() -> None:
    for op, weights, group in (("Conv", (4, 3, 3, 3), 1), ("Conv", (3, 2, 3, 3), 2), ("ConvTranspose", (3, 4, 3, 3), 1)):
        with pytest.raises(ModelError, match=r"weights [34]x"):
            make(op, _value(1, 4, 8, 8), _weights(*weights), group=group)
    with pytest.raises(ModelError, match="a bias of shape 3; the output has 4 channels"):
        make("Conv", _value(1, 4, 8, 8), _weights(4, 4, 1, 1), _weights(3))


def test_an_open_batch_stays_open() -> None:
    y = make("Conv", _value(Sym("n"), 3, 8, 8), _weights(4, 3, 3, 3))
    assert y.shape == (Sym("n"), 4, 6, 6)
    assert make("GlobalAveragePool", make("MaxPool", y, kernel_shape=(2, 2))).shape == (Sym("n"), 4, 1, 1)


LAYOUTS = {
    "Conv": ([(4, 2, 3, 3), (4,)], {"group": 2, "pads": (1, 0, 2, 1), "strides": (2, 1)}),
    "ConvTranspose": ([(4, 3, 3, 2), (3,)], {"strides": (2, 3), "pads": (1, 0, 0, 1)}),
    "MaxPool": ([], {"kernel_shape": (3, 2), "strides": (2, 2), "ceil_mode": 1}),
    "AveragePool": ([], {"kernel_shape": (3, 2), "pads": (1, 1, 1, 0), "count_include_pad": 1}),
    "LpPool": ([], {"kernel_shape": (2, 2), "p": 3}),
    "GlobalAveragePool": ([], {}),
    "GlobalMaxPool": ([], {}),
    "GlobalLpPool": ([], {"p": 1}),
}


@pytest.mark.parametrize("op", LAYOUTS)
def test_channels_last_is_the_same_with_its_axes_moved(op: str) -> None:
    shapes, attrs = LAYOUTS[op]
    x = RNG.standard_normal((2, 4, 6, 5)).astype(np.float32)
    weights = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    rest = [constant(w) for w in weights]
    first = make_node(op, [_value(2, 4, 6, 5), *rest], attrs, num_outputs=1)
    last = make_node(op, [_value(2, 6, 5, 4), *rest], attrs | {"layout": "NHWC"}, num_outputs=1)
    (a,) = ops.evaluate(first, [x, *weights])
    (b,) = ops.evaluate(last, [np.moveaxis(x, 1, -1), *weights])
    assert last.types[0].shape == b.shape and first.types[0].shape == a.shape
    np.testing.assert_array_equal(a, np.moveaxis(b, -1, 1))


def test_resize_in_channels_last() -> None:
    x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    scales = np.array([1, 1, 2, 1.5], np.float32)
    for attrs in ({"mode": "linear"}, {"mode": "nearest"}, {"mode": "cubic"}):
        inputs = [None, constant(scales)]
        first = make_node("Resize", [_value(2, 3, 4, 5), *inputs], attrs)
        last = make_node("Resize", [_value(2, 4, 5, 3), *inputs], attrs | {"layout": "NHWC"})
        (a,) = ops.evaluate(first, [x, None, scales])
        (b,) = ops.evaluate(last, [np.moveaxis(x, 1, -1), None, scales])
        assert last.types[0].shape == b.shape == (2, 8, 7, 3)
        np.testing.assert_array_equal(a, np.moveaxis(b, -1, 1))


POOLS = list(itertools.product(("MaxPool", "AveragePool"), (1, 2, 3), ((0, 0), (1, 1), (0, 1)), (0, 1), (15, 16, 17)))


@pytest.mark.parametrize(("op", "stride", "pads", "ceil", "size"), POOLS)
def test_pools_against_onnx_runtime(op: str, stride: int, pads: tuple[int, int], ceil: int, size: int) -> None:
    attrs: dict[str, Any] = {"kernel_shape": [3], "strides": [stride], "pads": list(pads), "ceil_mode": ceil}
    x = RNG.standard_normal((1, 2, size)).astype(np.float32)
    for extra in [{}] if op == "MaxPool" else [{"count_include_pad": 0}, {"count_include_pad": 1}]:
        proto = model([helper.make_node(op, ["x"], ["y"], **attrs, **extra)], [tensor("x", x.shape)], ["y"])
        agree(proto, {"x": x})


@pytest.mark.parametrize("size", [15, 16, 17, 31, 33])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_convolutions_against_onnx_runtime(size: int, group: int) -> None:
    x = RNG.standard_normal((2, 4, size, 5)).astype(np.float32)
    weights = {"w": RNG.standard_normal((8, 4 // group, 3, 2)).astype(np.float32), "b": np.arange(8, dtype=np.float32)}
    attrs = {"group": group, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [2, 1]}
    proto = model(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], **attrs)], [tensor("x", x.shape)], ["y"], initializers=weights
    )
    agree(proto, {"x": x}, rtol=1e-4, atol=1e-4)
    taps = {"w": RNG.standard_normal((4, 8 // group, 3, 2)).astype(np.float32), "b": np.arange(8, dtype=np.float32)}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], **attrs)
    agree(model([node], [tensor("x", x.shape)], ["y"], initializers=taps), {"x": x}, rtol=1e-4, atol=1e-4)


def test_not_a_number_passes_through() -> None:
    x = np.array([[[1, np.nan, 3, 4, np.inf, 6]]], np.float32)
    node = make_node("MaxPool", [_value(1, 1, 6)], {"kernel_shape": (2,), "strides": (2,)}, num_outputs=1)
    np.testing.assert_array_equal(ops.evaluate(node, [x])[0], [[[np.nan, 4, np.inf]]])
    node = make_node("AveragePool", [_value(1, 1, 6)], {"kernel_shape": (2,), "strides": (2,)})
    np.testing.assert_array_equal(ops.evaluate(node, [x])[0], [[[np.nan, 3.5, np.inf]]])


def test_an_empty_batch() -> None:
    node = make_node("Conv", [_value(0, 2, 4, 4), _weights(3, 2, 3, 3)])
    assert ops.evaluate(node, [np.zeros((0, 2, 4, 4), np.float32), np.ones((3, 2, 3, 3), np.float32)])[0].shape == (0, 3, 2, 2)
