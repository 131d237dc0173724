"""MatMulNBits (domain com.microsoft): a matrix product with constant weights of 4 or 8 bits, a scale a block of rows.

    Y[..., n] = sum over k of A[..., k] * (code[k, n] - zero[block of k, n]) * scale[block of k, n]

B holds the codes of a column side by side, [N, blocks, block_size * bits / 8], the even one of two in the low half of a byte.
"""

from dataclasses import dataclass

import numpy as np

from redline.base.errors import ModelError, UnsupportedError
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make, make_node

BITS = (4, 8)


@dataclass(frozen=True)
class Weights:
    """``codes`` uint8 [K, N]; ``scales`` and ``zeros`` float32 [blocks, N]."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    bits: int
    block: int

    @property
    def is_centred(self) -> bool:
        """Whether every zero point is the middle code."""
        return bool((self.zeros == 1 << (self.bits - 1)).all())

    def floats(self) -> np.ndarray:
        """[K, N] in float32."""
        block_of = np.arange(len(self.codes)) // self.block
        return np.asarray((self.codes.astype(np.float32) - self.zeros[block_of]) * self.scales[block_of], np.float32)

    def packed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """B, scales and zero points as the operator takes them."""
        (k, n), blocks = self.codes.shape, len(self.scales)
        whole = np.zeros((n, blocks * self.block), np.uint8)
        whole[:, :k] = self.codes.T
        zeros = np.ascontiguousarray(self.zeros.T).astype(np.uint8)
        if self.bits == 4:
            whole, zeros = _halved(whole), _halved(np.pad(zeros, ((0, 0), (0, blocks % 2))))
        return whole.reshape(n, blocks, -1), np.ascontiguousarray(self.scales.T), zeros


def weights_of(op: Op, b: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None = None) -> Weights:
    """The constant inputs taken apart."""
    k, n, bits, block = _sizes(op)
    blocks = -(-k // block)
    codes = _unpacked(b.reshape(n, -1), bits)[:, :k].T
    scale = scales.reshape(n, blocks).T.astype(np.float32)
    if zeros is None:
        zero = np.full((blocks, n), 1 << (bits - 1), np.float32)
    else:
        single = zeros.reshape(n, -1) if zeros.dtype.kind == "f" else _unpacked(zeros.reshape(n, -1), bits)
        zero = single[:, :blocks].T.astype(np.float32)
    contiguous = np.ascontiguousarray
    return Weights(contiguous(codes), contiguous(scale), contiguous(zero), bits, block)


def _halved(array: np.ndarray) -> np.ndarray:
    return np.asarray(array[:, 0::2] | array[:, 1::2] << 4, np.uint8)


def _unpacked(array: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return array
    return np.stack([array & 15, array >> 4], -1).reshape(len(array), -1)


def _sizes(op: Op) -> tuple[int, int, int, int]:
    k, n, bits, block = (int(op.attr(name, default)) for name, default in (("K", 0), ("N", 0), ("bits", 4), ("block_size", 0)))
    if bits not in BITS or block < 16 or block & (block - 1):
        seen = f"{bits} bits in blocks of {block}"
        raise UnsupportedError(op.label, seen, "allowed: 4 or 8 bits in blocks of a power of two from 16 on")
    return k, n, bits, block


def _infer(op: Op) -> list[TensorType]:
    k, n, bits, block = _sizes(op)
    if op.has(4):
        raise UnsupportedError(op.label, "MatMulNBits with g_idx", "rows in their own order only", "quantize without it")
    shape, blocks = op.type(0).shape, -(-k // block)
    if not shape or shape[-1] != k or op.type(1).shape != (n, blocks, block * bits // 8):
        raise ModelError(op.label, f"MatMulNBits of {op.type(0)} and {op.type(1)} with K = {k} and N = {n}")
    return [TensorType(op.type(0).dtype, (*shape[:-1], n))]


def _reference(op: Op, a: np.ndarray, b: np.ndarray, scales: np.ndarray, *rest: np.ndarray | None) -> np.ndarray:
    zeros, _, bias = (*rest, None, None, None)[:3]
    y = np.matmul(a.astype(np.float64), weights_of(op, b, scales, zeros).floats().astype(np.float64))
    return np.asarray(y if bias is None else y + bias, a.dtype)


def _decompose(op: Op) -> Value | None:
    """A bias is an addition of its own."""
    if not op.has(5):
        return None
    product = make_node("MatMulNBits", op.inputs[:4], op.attrs).out
    return make("Add", product, op.value(5))


define("MatMulNBits", _infer, _reference, _decompose, static=(1, 2, 3))
