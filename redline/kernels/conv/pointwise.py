"""A convolution of one tap is a matrix product: the pixels are rows, with the strides of the convolution in their view."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from redline.base.extents import is_open
from redline.base.shapes import size
from redline.kernels import matmul
from redline.kernels.conv.problem import Problem
from redline.kernels.problem import CpuTarget, KernelCode, Operand, Packing

BAND_SHARE = 0.25  # of the second-level cache, for weights that every thread reads


def applies(problem: Problem) -> bool:
    return size(problem.w.shape[2:]) == 1 and problem.groups == 1 and not any(problem.pads)


def is_legal(problem: Problem, schedule: matmul.Schedule, target: CpuTarget) -> bool:
    return matmul.is_legal(as_product(problem), schedule, target)


def product_schedules(problem: Problem, target: CpuTarget) -> Sequence[Any]:
    """The ways to compute it as a product, open or not."""
    product = as_product(problem)
    found = [_in_bands(product, schedule, target) for schedule in matmul.FAMILY.schedules(product, target)]
    return list(dict.fromkeys(found))


def _in_bands(product: matmul.Problem, s: Any, target: CpuTarget) -> Any:
    """``s`` with as many chunks, all of them bands of rows, where the weights are small and there are rows enough.

    The convolutions before and after are cut in bands, too, and a thread then finds what it reads in its own cache: what
    another core has just written comes at a third of the speed.
    """
    if not isinstance(s, matmul.Schedule) or s.swapped or product.b.num_bytes > BAND_SHARE * target.l2_bytes:
        return s
    bands = replace(s, row_chunks=s.row_chunks * s.panel_chunks, panel_chunks=1)
    return bands if matmul.is_legal(product, bands, target) else s


def as_product(problem: Problem) -> matmul.Problem:
    """The product with the same output, epilogue and extra operands."""
    x, w = problem.x, problem.w
    steps = (1, *problem.strides, 1)
    a = Operand(
        x.dtype, (*problem.out.shape[:-1], x.shape[-1]), tuple(s * k for s, k in zip(x.strides, steps, strict=True)), x.constant
    )
    batch = problem.out.shape[:-2]
    b = Operand(w.dtype, (*batch, w.shape[1], w.shape[0]), (*(0 for _ in batch), w.strides[1], w.strides[0]), w.constant)
    return matmul.Problem(a, b, problem.out, problem.epilogue, problem.extra)


def render(problem: Problem, schedule: Any, target: CpuTarget) -> KernelCode:
    product = as_product(problem)
    code = matmul.FAMILY.render(product, schedule, target)
    of_operand = {0: of_image, 1: of_weights}
    return replace(code, family="conv", packings={i: of_operand[i](packing, problem) for i, packing in code.packings.items()})


def of_weights(packing: Packing, problem: Problem) -> Packing:
    """``packing`` of the product's b applied to the convolution's w."""
    shape = as_product(problem).b.shape
    whole = (*(1 if is_open(extent) else extent for extent in shape[:-2]), *shape[-2:])  # along the batch all are one

    def apply(array: np.ndarray) -> np.ndarray:
        return packing.apply(np.broadcast_to(array.reshape(array.shape[:2]).T, whole))

    return Packing(f"conv-{packing.name}", apply)


def of_image(packing: Packing, problem: Problem) -> Packing:
    """``packing`` of the product's a applied to the convolution's x."""

    def apply(array: np.ndarray) -> np.ndarray:
        return packing.apply(array[(slice(None), *(slice(None, None, step) for step in problem.strides))])

    return Packing(f"conv-{packing.name}", apply)
