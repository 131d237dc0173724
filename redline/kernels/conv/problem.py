"""Convolutions with a fused epilogue: what to compute.

    out[n, o, m] = epilogue(sum over taps k, channels c of x[n, o * strides + k * dilations - pads, g * C/G + c] * w[m, c, k])

with g = m / (M / groups), positions o and taps k of one to three axes, and x ``pad_value`` outside its bounds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import shapes
from redline.base.dtypes import DType
from redline.base.shapes import StaticShape
from redline.kernels.dot import accumulator, agree
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.problem import Operand


@dataclass(frozen=True)
class Problem:
    """``x`` [N, spatial..., C] with ``w`` [M, C/groups, taps...] into ``out`` [N, spatial..., M]; any strides.

    ``pads`` are the begins of all spatial axes, then the ends (ONNX order). ``epilogue`` is a function of ``Acc(0)``, of the
    coordinates of ``out`` and of Loads: operand 0 is x, 1 is w, 2 and on are ``extra``. ``pad_value`` is x outside its bounds.
    """

    x: Operand
    w: Operand
    out: Operand
    epilogue: Expr
    extra: tuple[Operand, ...] = ()
    strides: StaticShape = (1, 1)
    dilations: StaticShape = (1, 1)
    pads: StaticShape = (0, 0, 0, 0)
    groups: int = 1
    pad_value: int = 0

    def __post_init__(self) -> None:
        spatial = tuple(
            (extent + before + after - (taps - 1) * dilation - 1) // stride + 1
            for extent, before, after, taps, dilation, stride in zip(
                self.x.shape[1:-1], self.pads[: self.rank], self.pads[self.rank :], self.w.shape[2:], self.dilations,
                self.strides, strict=True,
            )
        )  # fmt: skip
        expected = (self.x.shape[0], *spatial, self.w.shape[0])
        assert self.out.shape == expected, f"out is {self.out.shape}, x {self.x.shape} and w {self.w.shape} give {expected}"
        assert self.x.shape[-1] == self.w.shape[1] * self.groups, f"{self.groups} groups of {self.w.shape} from {self.x.shape}"
        assert self.w.shape[0] % self.groups == 0, f"{self.w.shape[0]} filters in {self.groups} groups"
        assert self.has_product, f"types differ: {self.x.dtype} and {self.w.dtype}"
        assert self.epilogue.dtype == self.out.dtype, f"the epilogue gives {self.epilogue.dtype}, out is {self.out.dtype}"

    @property
    def has_product(self) -> bool:
        """Whether elements of x and w may be multiplied."""
        return agree(self.x.dtype, self.w.dtype)

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.strides)

    @property
    def acc(self) -> DType:
        return accumulator(self.x.dtype)

    @property
    def reads(self) -> tuple[Operand, ...]:
        return (self.x, self.w, *self.extra)

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def flops(self) -> int:
        return 2 * shapes.size(self.out.shape) * shapes.size(self.w.shape[1:])


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The definition, with numpy: one matrix product a tap and group, summed in float64."""
    wide = np.float64 if problem.acc.is_float else problem.acc.numpy
    x, w = arrays[0].astype(wide), arrays[1].astype(wide)
    pads = list(zip(problem.pads[: problem.rank], problem.pads[problem.rank :], strict=True))
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=problem.pad_value)
    grouped = x.reshape(*x.shape[:-1], problem.groups, w.shape[1])
    filters = np.moveaxis(w, (0, 1), (-2, -1)).reshape(*w.shape[2:], problem.groups, -1, w.shape[1])
    sums = np.zeros((*problem.out.shape[:-1], problem.groups, filters.shape[-2]), wide)
    with np.errstate(all="ignore"):
        for taps in itertools.product(*map(range, w.shape[2:])):
            window = grouped[(slice(None), *_window(problem, taps))]
            sums += np.einsum("...gc,gmc->...gm", window, filters[taps])
    return (evaluate(problem.epilogue, arrays, problem.out.shape, [sums.reshape(problem.out.shape).astype(problem.acc.numpy)]),)


def _window(problem: Problem, taps: StaticShape) -> tuple[slice, ...]:
    """The padded input positions that meet ``taps``, one slice a spatial axis."""
    axes = zip(taps, problem.dilations, problem.strides, problem.out.shape[1:-1], strict=True)
    return tuple(slice(t * d, t * d + (extent - 1) * s + 1, s) for t, d, s, extent in axes)
