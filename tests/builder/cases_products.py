"""Matrix products of every rank, and attention with every kind of mask."""

import numpy as np

from tests.builder.bundle import RNG, Case, floats, one, weights

PRODUCTS: list[Case] = [
    one("constant", "MatMul", floats(7, 33), weights(33, 65)),
    one("at_run_time", "MatMul", floats(7, 33), floats(33, 17)),
    one("constant_on_the_left", "MatMul", weights(5, 16), floats(16, 9)),
    one("batched", "MatMul", floats(3, 5, 8), floats(3, 8, 6)),
    one("batch_of_one_side", "MatMul", floats(2, 3, 5, 8), weights(8, 6)),
    one("broadcast_batches", "MatMul", floats(2, 1, 5, 8), floats(3, 8, 6)),
    one("broadcast_constant", "MatMul", floats(2, 3, 5, 8), weights(3, 8, 6)),
    one("vector_left", "MatMul", floats(8), floats(8, 6)),
    one("vector_right", "MatMul", floats(4, 8), floats(8)),
    one("vectors", "MatMul", floats(31), floats(31)),
    one("vector_and_batch", "MatMul", floats(8), floats(3, 8, 6)),
    one("one_row", "MatMul", floats(1, 129), weights(129, 31)),
    one("one_column", "MatMul", floats(31, 129), weights(129, 1)),
    one("one_deep", "MatMul", floats(6, 1), weights(1, 20)),
    one("integers", "MatMul", RNG.integers(-9, 9, (5, 7), np.int32), RNG.integers(-9, 9, (7, 4), np.int32)),
    one("doubles", "MatMul", floats(5, 19).astype(np.float64), floats(19, 6).astype(np.float64)),
    one("gemm", "Gemm", floats(7, 12), weights(20, 12), weights(20), transB=1, alpha=0.5, beta=2.0),
    one("gemm_transposed", "Gemm", floats(12, 7), floats(12, 20), weights(7, 1), transA=1),
    one("einsum", "Einsum", floats(2, 5, 3, 4), floats(2, 6, 3, 4), equation="bqhd,bkhd->bhqk"),
    one("einsum_outer", "Einsum", floats(5), floats(6), equation="i,j->ij"),
]


def heads(length: int, count: int = 2, size: int = 16) -> np.ndarray:
    return floats(2, count, length, size)


def visible(*shape: int) -> np.ndarray:
    """A mask of truth values in which every row sees the first place."""
    mask = RNG.random(shape) < 0.6
    mask[..., 0] = True
    return mask


HIDDEN = visible(7, 9)
HIDDEN[3] = False  # a query that sees nothing
FAR = np.where(visible(2, 1, 7, 9), 0, -3.4e38).astype(np.float32)

ATTENTION: list[Case] = [
    one("plain", "Attention", heads(7), heads(9), heads(9)),
    one("causal", "Attention", heads(8), heads(8), heads(8), is_causal=1),
    one("causal_rectangle", "Attention", heads(5), heads(9), heads(9), is_causal=1),
    one("scaled", "Attention", heads(7), heads(9), heads(9), scale=0.3),
    one("boolean", "Attention", heads(7), heads(9), heads(9), visible(7, 9)),
    one("boolean_per_batch", "Attention", heads(7), heads(9), heads(9), visible(2, 1, 7, 9)),
    one("boolean_broadcast", "Attention", heads(7), heads(9), heads(9), visible(2, 1, 1, 9), witness=False),
    one("additive", "Attention", heads(7), heads(9), heads(9), floats(7, 9)),
    one("additive_very_negative", "Attention", heads(7), heads(9), heads(9), FAR),
    one("additive_constant", "Attention", heads(7), heads(9), heads(9), weights(2, 2, 7, 9)),
    one("a_row_that_sees_nothing", "Attention", heads(7), heads(9), heads(9), HIDDEN, witness=False),
    one("causal_and_masked", "Attention", heads(8), heads(8), heads(8), visible(8, 8), is_causal=1),
    one("fewer_keys", "Attention", heads(7, 4), heads(9, 2), heads(9, 2)),
    one("wide_values", "Attention", heads(7), heads(9), floats(2, 2, 9, 24)),
    one("flat", "Attention", floats(2, 7, 32), floats(2, 9, 32), floats(2, 9, 32), q_num_heads=2, kv_num_heads=2),
    one("one_query", "Attention", heads(1), heads(9), heads(9)),
    one("long", "Attention", floats(1, 2, 65, 33), floats(1, 2, 130, 33), floats(1, 2, 130, 33)),
    one("softcap", "Attention", heads(7), heads(9), heads(9), softcap=2.0),
]
