"""Matrix products with a fused epilogue: what to compute.

out[..., m, n] = epilogue(sum over k of a[..., m, k] * b[..., k, n])
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base import shapes
from redline.base.dtypes import DType
from redline.kernels.dot import accumulator, agree
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Acc, Expr
from redline.kernels.problem import Operand


@dataclass(frozen=True)
class Problem:
    """``a`` [..., M, K] times ``b`` [..., K, N] into ``out`` [..., M, N]; batch axes equal, broadcast ones of stride 0.

    ``epilogue`` is a function of ``Acc(0)``, of the coordinates of ``out`` and of Loads: operand 0 is a, 1 is b, 2 and
    on are ``extra``. Its type is that of ``out``; the type of ``Acc(0)`` is ``acc``.
    """

    a: Operand
    b: Operand
    out: Operand
    epilogue: Expr
    extra: tuple[Operand, ...] = ()

    def __post_init__(self) -> None:
        assert self.a.shape == (*self.out.shape[:-1], self.k), f"a {self.a.shape} does not fit out {self.out.shape}"
        assert self.b.shape == (*self.batch, self.k, self.n), f"b {self.b.shape} does not fit out {self.out.shape}"
        assert agree(self.a.dtype, self.b.dtype), f"types differ: {self.a.dtype} and {self.b.dtype}"
        assert self.epilogue.dtype == self.out.dtype, f"the epilogue gives {self.epilogue.dtype}, out is {self.out.dtype}"

    @property
    def batch(self) -> shapes.StaticShape:
        return self.out.shape[:-2]

    @property
    def m(self) -> int:
        return self.out.shape[-2]

    @property
    def n(self) -> int:
        return self.out.shape[-1]

    @property
    def k(self) -> int:
        return self.a.shape[-1]

    @property
    def acc(self) -> DType:
        return accumulator(self.a.dtype)

    @property
    def reads(self) -> tuple[Operand, ...]:
        return (self.a, self.b, *self.extra)

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.out,)

    @property
    def flops(self) -> int:
        return 2 * shapes.size(self.out.shape) * self.k


def product(a: Operand, b: Operand, out: Operand) -> Problem:
    """The bare product, without an epilogue."""
    return Problem(a, b, out, Acc(accumulator(a.dtype)))


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The definition, with numpy; sums of floats are exact to float64 before they are rounded to ``acc``."""
    wide = np.float64 if problem.acc.is_float else problem.acc.numpy
    with np.errstate(all="ignore"):
        sums = np.matmul(arrays[0].astype(wide), arrays[1].astype(wide)).astype(problem.acc.numpy)
    return (evaluate(problem.epilogue, arrays, problem.out.shape, [sums]),)
