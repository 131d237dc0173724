"""What works along axes: softmax, normalisations, reductions, arg-extremes, sorts and scans."""

import numpy as np

from tests.builder.bundle import RNG, Case, Fixed, floats, ints, one, weights

TIES = np.array([[2, 5, 5, 1, 5], [3, 3, 3, 3, 3]], np.float32)
SMALL = RNG.integers(-4, 5, (3, 4, 5), np.int64)


def axis(number: int) -> Fixed:
    return Fixed(np.array(number, np.int64))


ROWS: list[Case] = [
    one("softmax", "Softmax", floats(3, 4, 33)),
    one("softmax_inner", "Softmax", floats(3, 17, 5), axis=1),
    one("softmax_first", "Softmax", floats(9, 4, 5), axis=0),
    one("softmax_of_one", "Softmax", floats(7, 1)),
    one("log_softmax", "LogSoftmax", floats(5, 31), axis=-1),
    one("log_softmax_first", "LogSoftmax", floats(31, 5), axis=0),
    one("hardmax", "Hardmax", TIES),
    one("layer", "LayerNormalization", floats(4, 6, 33), weights(33), weights(33)),
    one("layer_two_axes", "LayerNormalization", floats(4, 6, 10), weights(6, 10), weights(6, 10), axis=1),
    one("layer_three_axes", "LayerNormalization", floats(4, 6, 10), weights(4, 6, 10), axis=0),
    one("layer_broadcast_scale", "LayerNormalization", floats(4, 6, 10), weights(10), weights(6, 1), axis=1),
    one("layer_scale_at_run_time", "LayerNormalization", floats(5, 16), floats(16), floats(16)),
    one(
        "layer_statistics", "LayerNormalization", floats(4, 6, 10), weights(10), weights(10), outputs=("y", "mean", "inverse")
    ),
    one("layer_inverse_only", "LayerNormalization", floats(4, 6, 10), weights(10), outputs=("y", "", "inverse"), axis=-1),
    one("rms", "RMSNormalization", floats(4, 6, 33), weights(33)),
    one("rms_two_axes", "RMSNormalization", floats(4, 6, 10), weights(6, 10), axis=1),
    one("instance", "InstanceNormalization", floats(2, 3, 5, 7), weights(3), weights(3)),
    one("group", "GroupNormalization", floats(2, 6, 5, 7), weights(6), weights(6), num_groups=3),
    one("lp_norm", "LpNormalization", floats(3, 9), axis=1, p=2),
    one("local_response", "LRN", floats(1, 9, 4, 4), size=3),
    one("mean_variance", "MeanVarianceNormalization", floats(2, 3, 4, 5)),
]  # fmt: skip

REDUCTIONS: list[Case] = [
    one("sum", "ReduceSum", floats(3, 17, 5), ints(1)),
    one("sum_last", "ReduceSum", floats(3, 4, 65), ints(-1), keepdims=0),
    one("sum_all", "ReduceSum", floats(3, 17, 5), keepdims=0),
    one("sum_outer_and_inner", "ReduceSum", floats(3, 4, 5), ints(0, 2), keepdims=0),
    one("sum_of_integers", "ReduceSum", SMALL, ints(0, 1)),
    one("sum_of_none", "ReduceSum", floats(3, 4), noop_with_empty_axes=1),
    one("mean", "ReduceMean", floats(2, 3, 7, 7), ints(2, 3)),
    one("max", "ReduceMax", floats(3, 17, 5), ints(1)),
    one("min", "ReduceMin", SMALL.astype(np.int32), ints(0)),
    one("max_of_truths", "ReduceMax", SMALL > 2, ints(1), witness=False),
    one("prod", "ReduceProd", floats(3, 6), ints(1)),
    one("l1", "ReduceL1", floats(3, 6, 4), ints(1)),
    one("l2", "ReduceL2", floats(3, 6, 4), ints(0, 2)),
    one("square", "ReduceSumSquare", floats(3, 6, 4), ints(2)),
    one("log_sum", "ReduceLogSum", np.abs(floats(3, 6, 4)), ints(1)),
    one("log_sum_exp", "ReduceLogSumExp", 50 * floats(3, 6, 4), ints(1)),
    one("variance_axis_of_one", "ReduceSum", floats(3, 1, 5), ints(1)),
    one("arg_max", "ArgMax", floats(3, 17, 5), axis=1),
    one("arg_max_first_of_ties", "ArgMax", TIES, axis=1, keepdims=0),
    one("arg_max_last_of_ties", "ArgMax", TIES, axis=1, select_last_index=1),
    one("arg_min", "ArgMin", SMALL, axis=0, keepdims=0, witness=False),
    one("top_3", "TopK", floats(4, 33), ints(3), outputs=("y", "places")),
    one("top_smallest", "TopK", floats(4, 7, 3), ints(4), axis=1, largest=0, outputs=("y", "places")),
    one("top_of_ties", "TopK", TIES, ints(4), outputs=("y", "places")),
    one("top_all", "TopK", floats(9, 2), ints(9), axis=0, outputs=("y", "places")),
    one("top_places_only", "TopK", floats(4, 9), ints(2), outputs=("", "places"), witness=False),
    one("cumulative", "CumSum", floats(3, 17, 5), axis(1)),
    one("cumulative_exclusive", "CumSum", floats(3, 9), axis(-1), exclusive=1),
    one("cumulative_reverse", "CumSum", floats(9, 4), axis(0), reverse=1),
    one("cumulative_both", "CumSum", SMALL, axis(2), reverse=1, exclusive=1),
    one("cumulative_product", "CumProd", floats(3, 7), axis(1), witness=False),
]
