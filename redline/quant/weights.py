"""Weight-only quantization: matrix products with constant weights keep their activations and store weights in 4 or 8 bits.

For products of few rows, whose time is the time to read weights. Needs no calibration: a block of rows of a column has the
scale that its own values ask for. 8 bits are symmetric, in blocks of 128; 4 bits have a zero point, in blocks of 32.
"""

import numpy as np

from redline.base import dtypes
from redline.ir import CONSTANT, Graph, Node, Rewriter, Rule, Value, constant, rewrite
from redline.ops import make_node
from redline.ops.nbits import Weights

BLOCKS = {8: 128, 4: 32}  # rows that share a scale, by bits
MIN_WEIGHTS = 1 << 12  # smaller ones lie in a cache anyhow
TINY = 1e-12


def narrow_weights(graph: Graph, bits: int) -> Graph:
    """``graph`` with its matrix products by constant weights as MatMulNBits."""

    def rule(node: Node, rewriter: Rewriter) -> Value | None:
        x, w = node.inputs[:2]
        if x is None or w is None or w.array is None or x.op == CONSTANT or node.types[0].dtype != dtypes.float32:
            return None
        if w.array.ndim != 2 or w.array.size < MIN_WEIGHTS:
            return None
        found = quantized(w.array, bits, BLOCKS[bits])
        k, n = w.array.shape
        attrs = {"K": k, "N": n, "bits": bits, "block_size": found.block}
        b, scales, zeros = found.packed()
        inputs = [x, constant(b, w.node.name), constant(scales)]
        inputs += [] if found.is_centred else [constant(zeros)]
        return make_node("MatMulNBits", tuple(inputs), attrs, name=node.name, origin=node.origin).out

    return rewrite(graph, [Rule("narrow_weights", frozenset({"MatMul"}), rule)])[0]


def quantized(array: np.ndarray, bits: int, block: int) -> Weights:
    """[K, N] weights in blocks of rows: symmetric about the middle code at 8 bits, from least to largest at 4."""
    k, n = array.shape
    blocks = -(-k // block)
    padded = np.zeros((blocks * block, n), np.float32)
    padded[:k] = array
    cut = padded.reshape(blocks, block, n)
    middle, top = 1 << (bits - 1), (1 << bits) - 1
    if bits == 8:
        scales = np.maximum(np.abs(cut).max(1), TINY) / (middle - 1)
        zeros = np.full((blocks, n), middle, np.float32)
    else:
        low, high = np.minimum(cut.min(1), 0), np.maximum(cut.max(1), 0)
        scales = np.maximum(high - low, TINY) / top
        zeros = np.clip(np.rint(-low / scales), 0, top).astype(np.float32)
    scales = scales.astype(np.float32)
    codes = np.clip(np.rint(cut / scales[:, None]) + zeros[:, None], 0, top).astype(np.uint8)
    return Weights(codes.reshape(-1, n)[:k], scales, zeros, bits, block)
