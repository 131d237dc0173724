"""Convolutions and pools in every form that ONNX writes them in."""

import numpy as np

from tests.builder.bundle import Case, floats, one, weights

CONVOLUTIONS: list[Case] = [
    one("plain", "Conv", floats(1, 5, 9, 7), weights(8, 5, 3, 3), weights(8)),
    one("pointwise", "Conv", floats(2, 17, 5, 3), weights(33, 17, 1, 1)),
    one("pointwise_strided", "Conv", floats(1, 4, 7, 7), weights(8, 4, 1, 1), strides=[2, 3]),
    one("padded_unevenly", "Conv", floats(1, 3, 8, 6), weights(16, 3, 3, 2), pads=[1, 0, 2, 1]),
    one("strided", "Conv", floats(1, 3, 15, 15), weights(8, 3, 7, 7), weights(8), strides=[2, 2], pads=[3, 3, 3, 3]),
    one("dilated", "Conv", floats(1, 4, 12, 12), weights(6, 4, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3]),
    one("same_upper", "Conv", floats(1, 3, 8, 7), weights(5, 3, 4, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    one("same_lower", "Conv", floats(1, 3, 8, 7), weights(5, 3, 4, 3), auto_pad="SAME_LOWER", strides=[2, 2]),
    one("valid", "Conv", floats(1, 3, 8, 7), weights(5, 3, 4, 3), auto_pad="VALID"),
    one("grouped", "Conv", floats(1, 12, 6, 6), weights(18, 4, 3, 3), weights(18), group=3, pads=[1, 1, 1, 1]),
    one("grouped_wide", "Conv", floats(1, 32, 5, 5), weights(64, 16, 3, 3), group=2, pads=[1, 1, 1, 1]),
    one("depthwise", "Conv", floats(1, 19, 9, 8), weights(19, 1, 3, 3), weights(19), group=19, pads=[1, 1, 1, 1]),
    one("depthwise_strided", "Conv", floats(1, 16, 9, 9), weights(16, 1, 5, 5), group=16, strides=[2, 2], pads=[2, 2, 2, 2]),
    one("depthwise_dilated", "Conv", floats(1, 8, 9, 9), weights(8, 1, 3, 3), group=8, dilations=[2, 2]),
    one("depthwise_multiplied", "Conv", floats(1, 6, 7, 7), weights(18, 1, 3, 3), group=6),
    one("one_dimension", "Conv", floats(2, 3, 20), weights(8, 3, 5), weights(8), strides=[2], pads=[2, 1]),
    one("one_dimension_depthwise", "Conv", floats(1, 9, 11), weights(9, 1, 3), group=9, pads=[1, 1]),
    one("three_dimensions", "Conv", floats(1, 2, 5, 6, 7), weights(4, 2, 3, 2, 3), weights(4), pads=[1, 0, 1, 1, 1, 0]),
    one("three_dimensions_strided", "Conv", floats(1, 2, 5, 6, 7), weights(4, 2, 2, 2, 2), strides=[2, 1, 3]),
    one("one_channel", "Conv", floats(1, 1, 5, 5), weights(1, 1, 3, 3)),
    one("weights_at_run_time", "Conv", floats(1, 3, 6, 6), floats(4, 3, 3, 3), floats(4)),
    one("image_as_small_as_the_window", "Conv", floats(1, 3, 3, 3), weights(4, 3, 3, 3)),
    one("double", "Conv", floats(1, 3, 6, 6).astype(np.float64), floats(4, 3, 3, 3).astype(np.float64), witness=False),
    one("winograd_size", "Conv", floats(1, 32, 12, 12), weights(32, 32, 3, 3), weights(32), pads=[1, 1, 1, 1]),
]

TRANSPOSED: list[Case] = [
    one("transposed", "ConvTranspose", floats(1, 4, 5, 6), weights(4, 3, 3, 3), weights(3)),
    one("transposed_strided", "ConvTranspose", floats(1, 4, 5, 6), weights(4, 3, 3, 3), strides=[2, 3]),
    one("transposed_gaps", "ConvTranspose", floats(1, 2, 3, 3), weights(2, 5, 2, 2), weights(5), strides=[3, 4]),
    one("transposed_dilated", "ConvTranspose", floats(1, 3, 5, 5), weights(3, 4, 3, 3), dilations=[2, 1]),
    one("transposed_both", "ConvTranspose", floats(1, 3, 4, 4), weights(3, 4, 3, 3), strides=[2, 3], dilations=[3, 2]),
    one("transposed_padded", "ConvTranspose", floats(1, 3, 6, 6), weights(3, 8, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1]),
    one("transposed_padded_far", "ConvTranspose", floats(1, 2, 6, 6), weights(2, 3, 3, 3), pads=[2, 1, 3, 0]),
    one(
        "transposed_grouped", "ConvTranspose", floats(1, 6, 5, 5), weights(6, 2, 3, 3), weights(6), group=3, strides=[2, 2],
        pads=[1, 1, 1, 1],
    ),
    one("transposed_depthwise", "ConvTranspose", floats(1, 8, 5, 5), weights(8, 1, 2, 2), group=8, strides=[2, 2]),
    one(
        "transposed_output_padding", "ConvTranspose", floats(1, 3, 4, 4), weights(3, 5, 3, 3), weights(5), strides=[2, 2],
        pads=[1, 1, 1, 1], output_padding=[1, 1],
    ),
    one("transposed_shape", "ConvTranspose", floats(1, 3, 4, 4), weights(3, 2, 3, 3), strides=[2, 2], output_shape=[10, 8]),
    one("transposed_same", "ConvTranspose", floats(1, 3, 4, 4), weights(3, 2, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    one("transposed_one_dimension", "ConvTranspose", floats(2, 3, 7), weights(3, 4, 4), weights(4), strides=[2], pads=[1, 1]),
    one("transposed_three_dimensions", "ConvTranspose", floats(1, 2, 3, 4, 3), weights(2, 3, 2, 3, 2), strides=[2, 1, 2]),
    one("transposed_at_run_time", "ConvTranspose", floats(1, 3, 4, 4), floats(3, 2, 2, 2), strides=[2, 2]),
]  # fmt: skip

WINDOW = {"kernel_shape": [3, 2], "strides": [2, 2]}
EVEN = np.arange(2 * 3 * 8 * 6, dtype=np.float32)
TIES = np.tile(np.array([3, 1, 3, 2], np.float32), 24).reshape(1, 2, 8, 6)

POOLS: list[Case] = [
    one("max", "MaxPool", floats(1, 17, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    one("max_ceil", "MaxPool", floats(1, 3, 8, 7), ceil_mode=1, **WINDOW),
    one("max_dilated", "MaxPool", floats(1, 3, 9, 9), kernel_shape=[3, 3], dilations=[2, 2]),
    one("max_one_dimension", "MaxPool", floats(2, 3, 11), kernel_shape=[4], pads=[1, 2]),
    one("max_three_dimensions", "MaxPool", floats(1, 2, 5, 6, 4), kernel_shape=[2, 3, 2], strides=[1, 2, 2]),
    one("max_same", "MaxPool", floats(1, 2, 7, 7), kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    one("max_bytes", "MaxPool", EVEN.reshape(2, 3, 8, 6).astype(np.uint8), kernel_shape=[2, 2]),
    one("max_indices", "MaxPool", floats(2, 3, 8, 6), outputs=("y", "places"), **WINDOW),
    one("max_indices_padded", "MaxPool", floats(1, 2, 5, 5), outputs=("y", "places"), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    one("max_indices_of_ties", "MaxPool", TIES, outputs=("y", "places"), kernel_shape=[2, 2]),
    one("max_indices_by_columns", "MaxPool", floats(2, 3, 8, 6), outputs=("y", "places"), storage_order=1, **WINDOW),
    one("max_indices_one_dimension", "MaxPool", floats(2, 3, 9), outputs=("y", "places"), kernel_shape=[2], strides=[2]),
    one("average", "AveragePool", floats(1, 17, 9, 8), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    one("average_with_padding", "AveragePool", floats(1, 3, 7, 7), kernel_shape=[3, 3], pads=[1, 2, 1, 0], count_include_pad=1),
    one("average_ceil", "AveragePool", floats(1, 3, 8, 7), ceil_mode=1, **WINDOW),
    one(
        "average_ceil_with_padding", "AveragePool", floats(1, 3, 8, 7), ceil_mode=1, count_include_pad=1, pads=[1, 0, 1, 1],
        **WINDOW,
    ),
    one("average_dilated", "AveragePool", floats(1, 3, 9, 9), kernel_shape=[2, 3], dilations=[3, 2]),
    one("average_same_lower", "AveragePool", floats(1, 3, 6, 6), kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
    one("average_three_dimensions", "AveragePool", floats(1, 2, 4, 5, 6), kernel_shape=[2, 2, 2]),
    one("lp_2", "LpPool", floats(1, 3, 8, 7), p=2, **WINDOW),
    one("lp_1_padded", "LpPool", floats(1, 3, 6, 6), p=1, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    one("lp_3", "LpPool", floats(1, 3, 9), p=3, kernel_shape=[2], strides=[2]),
    one("global_average", "GlobalAveragePool", floats(2, 5, 7, 6)),
    one("global_max", "GlobalMaxPool", floats(2, 5, 7, 6)),
    one("global_lp", "GlobalLpPool", floats(2, 5, 7, 6), witness=False),
]  # fmt: skip
