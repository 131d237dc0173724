"""A convolution of one tap whose result only a depthwise convolution reads: what to compute.

    held[n, p, c] = first.epilogue(sum over k of x[n, p, k] * w[c, k])
    out[n, o, c]  = second.epilogue(sum over taps t of held[n, o * strides + t * dilations - pads, c] * taps[c, 0, t])

The first half of an inverted residual block: it makes many channels of few, and they never reach memory as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base.dtypes import float32
from redline.kernels import conv, depthwise
from redline.kernels.conv import pointwise
from redline.kernels.matmul import gemm as gemms
from redline.kernels.parts import any_open
from redline.kernels.problem import Operand


@dataclass(frozen=True)
class Problem:
    """``second.x`` is ``first.out``. The operands are the first's, then the second's without its x."""

    first: conv.Problem
    second: depthwise.Problem

    def __post_init__(self) -> None:
        assert applies(self.first, self.second), f"{self.first} and {self.second} are not to be joined"

    @property
    def reads(self) -> tuple[Operand, ...]:
        return (*self.first.reads, *self.second.reads[1:])

    @property
    def writes(self) -> tuple[Operand, ...]:
        return self.second.writes

    @property
    def flops(self) -> int:
        return self.first.flops + self.second.flops


def applies(first: conv.Problem, second: depthwise.Problem) -> bool:
    """Whether the two make one problem: float32 images of fixed sizes whose pixels lie one after the other."""
    return (
        not any_open((*first.reads, *second.reads), second.writes)
        and first.out == second.x
        and first.out.is_contiguous
        and {first.x.dtype, first.w.dtype, second.x.dtype, second.w.dtype} == {float32}
        and first.w.constant
        and second.w.constant
        and pointwise.applies(first)
        and not gemms.of(pointwise.as_product(first)).batch
        and second.rank == 2
        and not second.pad_value
        and not second.limit
    )


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The definition: one convolution after the other."""
    count = len(problem.first.reads)
    (held,) = conv.reference(problem.first, arrays[:count])
    return conv.reference(problem.second, [held, *arrays[count:]])
