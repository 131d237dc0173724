"""Older opsets: every operator whose form or meaning changed, against ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from redline.base.errors import ModelError, UnsupportedError
from redline.frontend import load
from tests.frontend.models import agree, model, results, tensor

X = np.random.default_rng(0).standard_normal((2, 4, 6, 5)).astype(np.float32)
I64 = np.int64


def _one(
    op: str, opset: int, extra: dict[str, np.ndarray] | None = None, outputs: int = 1, shape: Any = X.shape, **attrs: Any
) -> onnx.ModelProto:
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ["x", *(extra or {})], names, **attrs)
    return model([node], [tensor("x", shape)], names, initializers=extra, opset=opset)


CASES = {
    "squeeze": _one("Squeeze", 11, shape=(2, 1, 4), axes=[1]),
    "unsqueeze": _one("Unsqueeze", 11, axes=[0, 3]),
    "split by sizes": _one("Split", 11, outputs=2, axis=1, split=[1, 3]),
    "split equally": _one("Split", 11, outputs=2, axis=2),
    "split equally 13": _one("Split", 13, outputs=2, axis=2),
    "clip": _one("Clip", 10, min=-0.5, max=0.25),
    "clip above only": _one("Clip", 6 + 1, max=0.25),
    "pad": _one("Pad", 10, pads=[0, 0, 1, 2, 0, 0, 3, 1], value=1.5),
    "pad reflect": _one("Pad", 10, pads=[0, 0, 1, 2, 0, 0, 3, 1], mode="reflect"),
    "slice": _one("Slice", 9, starts=[1, -3], ends=[3, 100], axes=[1, 3]),
    "slice without axes": _one("Slice", 9, starts=[0, 1], ends=[1, 3]),
    "topk": _one("TopK", 9, outputs=2, k=2, axis=2),
    "reduce mean": _one("ReduceMean", 13, axes=[2, 3], keepdims=0),
    "reduce sum": _one("ReduceSum", 11, axes=[-1]),
    "reduce all": _one("ReduceMax", 12, keepdims=0),
    "reduce l2": _one("ReduceL2", 13, axes=[1]),
    "softmax over several axes": _one("Softmax", 11),
    "softmax over the last axis": _one("Softmax", 11, axis=3),
    "log softmax": _one("LogSoftmax", 11, axis=2),
    "hardmax": _one("Hardmax", 11, axis=1),
    "dropout 7": _one("Dropout", 7, ratio=0.4),
    "dropout 12": _one("Dropout", 12, {"ratio": np.array(0.4, np.float32)}),
    "upsample 7": _one("Upsample", 7, scales=[1.0, 1.0, 2.0, 3.0], mode="nearest"),
    "upsample 9": _one("Upsample", 9, {"s": np.array([1, 1, 2, 2], np.float32)}, mode="linear"),
    "resize 10": _one("Resize", 10, {"s": np.array([1, 1, 0.5, 2], np.float32)}, mode="nearest"),
    "resize 11": _one(
        "Resize", 11, {"roi": np.array([], np.float32), "s": np.array([1, 1, 1.5, 2], np.float32)}, mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    "resize 11 sizes": _one(
        "Resize", 11, {"roi": np.array([], np.float32), "s": np.array([], np.float32), "n": np.array([2, 4, 3, 9])},
        mode="cubic", coordinate_transformation_mode="half_pixel",
    ),
    "batch normalization 7": _one(
        "BatchNormalization", 7, {k: np.array([0.5, 1, 2, 3], np.float32) for k in ("scale", "bias", "mean", "var")}
    ),
    "batch normalization 9": _one(
        "BatchNormalization", 9, {k: np.array([0.5, 1, 2, 3], np.float32) for k in ("scale", "bias", "mean", "var")}
    ),
    "group normalization 18": _one(
        "GroupNormalization", 18, {"scale": np.array([1, 2], np.float32), "bias": np.array([0, 1], np.float32)}, num_groups=2
    ),
    "scatter": model(
        [helper.make_node("Scatter", ["x", "i", "u"], ["y0"], axis=3)], [tensor("x", X.shape)], ["y0"],
        initializers={"i": np.array([[[[1, 3]]]]), "u": np.array([[[[7, 8]]]], np.float32)}, opset=9,
    ),
    "grid sample 16": _one(
        "GridSample", 16, {"g": np.random.default_rng(1).uniform(-1.3, 1.3, (2, 3, 3, 2)).astype(np.float32)},
        mode="bilinear", padding_mode="reflection",
    ),
    "grid sample 16 cubic": _one(
        "GridSample", 16, {"g": np.random.default_rng(1).uniform(-1.3, 1.3, (2, 3, 3, 2)).astype(np.float32)},
        mode="bicubic", padding_mode="border", align_corners=1,
    ),
    "roi align 10": _one(
        "RoiAlign", 10, {"r": np.array([[0, 0, 3, 4], [1, 1, 2, 2]], np.float32), "b": np.array([0, 1])},
        output_height=2, output_width=2, sampling_ratio=2,
    ),
    "dft 17": _one("DFT", 17, shape=(2, 12, 1), axis=1, onesided=1),
    "max pool 8": _one("MaxPool", 8, outputs=2, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "average pool 7": _one("AveragePool", 7, kernel_shape=[2, 3], auto_pad="SAME_UPPER"),
    "cast 9": _one("Cast", 9, to=onnx.TensorProto.INT32),
    "gemm 7": model(
        [helper.make_node("Gemm", ["x", "w", "c"], ["y0"], transB=1, alpha=0.5)], [tensor("x", (3, 4))], ["y0"],
        initializers={"w": X[0, 0, :2, :4].copy(), "c": np.ones(2, np.float32)}, opset=7,
    ),
}  # fmt: skip


@pytest.mark.parametrize("proto", CASES.values(), ids=CASES.keys())
def test_an_older_form_means_the_same(proto: onnx.ModelProto) -> None:
    shape = tuple(dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim)
    agree(proto, {"x": np.resize(X, shape)}, atol=1e-5)


def test_the_mask_of_dropout_is_all_true() -> None:
    for opset in (7, 12):
        x, mask = results(_one("Dropout", opset, outputs=2), {"x": X})
        assert np.array_equal(x, X) and mask.dtype == bool and mask.all() and mask.shape == X.shape


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (
            _one("Dropout", 12, {"ratio": np.array(0.4, np.float32), "training": np.array(True)}),
            "Dropout in training mode is random; an engine is for inference: export in evaluation mode",
        ),
        (
            _one("BatchNormalization", 7, {k: np.ones(4, np.float32) for k in "sbmv"}, spatial=0),
            "BatchNormalization with spatial=0",
        ),
        (
            _one("BatchNormalization", 9, {k: np.ones(4, np.float32) for k in "sbmv"}, outputs=3),
            "BatchNormalization in training mode",
        ),
        (
            _one("Resize", 11, {"r": np.array([], np.float32), "s": np.ones(4, np.float32)},
                 coordinate_transformation_mode="tf_half_pixel_for_nn"),
            "Resize with tf_half_pixel_for_nn",
        ),
    ],
)  # fmt: skip
def test_forms_that_later_opsets_dropped(proto: onnx.ModelProto, message: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        load(proto)
    assert message.replace(": export", "; export").split(";")[0] in str(error.value)


def test_a_split_has_an_output_a_part() -> None:
    with pytest.raises(ModelError, match="Split into 3 parts with 2 outputs; one output a part"):
        load(_one("Split", 18, outputs=2, axis=1, num_outputs=3))
