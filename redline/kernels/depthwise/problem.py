"""Depthwise convolutions with a fused epilogue: a convolution with as many groups as channels and filters.

out[n, o, c] = epilogue(sum over taps k of x[n, o * strides + k * dilations - pads, c] * w[c, 0, k])
"""

from dataclasses import dataclass

from redline.kernels import conv


@dataclass(frozen=True)
class Problem(conv.Problem):
    """As a convolution's; ``groups`` equals the channels and the filters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        channels = self.x.shape[-1]
        assert self.groups == channels == self.w.shape[0], f"{channels} channels, {self.groups} groups, w {self.w.shape}"
