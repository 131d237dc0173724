"""Depthwise convolutions with a fused epilogue: a convolution with as many groups as channels and filters.

out[n, o, c] = epilogue(sum over taps k of x[n, o * strides + k * dilations - pads, c] * w[c, 0, k])

On GPUs, where no matrix unit multiplies here, w may be float32 beside an x of 16 bits: floats, or numbers of fixed point.
"""

from dataclasses import dataclass

from redline.base.dtypes import NARROW_FLOATS, DType, float32, uint16
from redline.kernels import conv
from redline.kernels.dot import accumulator, agree

LIMIT = 1 << 15  # a uint16 below it becomes a float in one instruction on GPUs


@dataclass(frozen=True)
class Problem(conv.Problem):
    """As a convolution's; ``groups`` equals the channels and the filters. ``limit``: every x is below it; 0: not known."""

    limit: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        channels = self.x.shape[-1]
        assert self.groups == channels == self.w.shape[0], f"{channels} channels, {self.groups} groups, w {self.w.shape}"

    @property
    def has_product(self) -> bool:
        return agree(self.x.dtype, self.w.dtype) or (self.w.dtype == float32 and self.x.dtype in (*NARROW_FLOATS, uint16))

    @property
    def acc(self) -> DType:
        return accumulator(self.w.dtype)
