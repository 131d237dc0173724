"""Products with weights of few bits: what to compute.

    out[..., n] = epilogue(sum over blocks b of scales[b, n] * (sum over k in b of x[..., k] * codes[k, n])
                           - shifts[b, n] * (sum over k in b of x[..., k]))

A block is ``block`` neighbours along k; the last one may be shorter. ``shifts`` are scales times zero points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.shapes import size
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.problem import Operand

CODES = {4: dtypes.uint8, 8: dtypes.int8}  # the type of a code in ``codes``, one a byte, by bits


@dataclass(frozen=True)
class Problem:
    """``reads``: x [..., K], codes [K, N], scales [blocks, N], shifts of the same shape if ``shifted``, then what the
    epilogue loads. All but x are constant. ``epilogue`` is a function of ``Acc(0)``, a float32, and of coordinates of out.
    """

    reads: tuple[Operand, ...]
    out: Operand
    epilogue: Expr
    bits: int
    block: int
    shifted: bool = False

    def __post_init__(self) -> None:
        x, codes, *scales = self.reads[: 3 + self.shifted]
        assert self.bits in CODES and codes.dtype == CODES[self.bits], f"{self.bits} bits in {codes.dtype}"
        assert codes.shape == (self.k, self.n) and x.shape == (*self.out.shape[:-1], self.k), f"{x} and {codes}"
        assert self.block > 0 and self.block % 2 == 0, f"blocks of {self.block}"
        assert all(s.shape == (self.num_blocks, self.n) and s.constant for s in scales) and codes.constant
        assert x.dtype.is_float and self.epilogue.dtype == self.out.dtype

    @property
    def m(self) -> int:
        return size(self.out.shape[:-1])

    @property
    def n(self) -> int:
        return self.out.shape[-1]

    @property
    def k(self) -> int:
        return self.reads[0].shape[-1]

    @property
    def num_blocks(self) -> int:
        return -(-self.k // self.block)

    @property
    def acc(self) -> DType:
        return dtypes.float32

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The definition, with numpy, in float64 up to the epilogue."""
    x, codes, scales = (array.astype(np.float64) for array in arrays[:3])
    block_of = np.arange(problem.k) // problem.block
    weights = codes * scales[block_of]
    if problem.shifted:
        weights -= arrays[3].astype(np.float64)[block_of]
    return (evaluate(problem.epilogue, arrays, problem.out.shape, [(x @ weights).astype(np.float32)]),)
