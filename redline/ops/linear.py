"""Matrix products and determinants: MatMul, Gemm, Det."""

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError, RedlineError
from redline.base.shapes import Dim, Shape, Sym
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import common_dtype, plain, reshaped, scalar, transposed, widened


def _matmul_shape(op: Op) -> Shape:
    a, b = op.type(0).shape, op.type(1).shape
    if a and b:
        left, right = ((1, *a) if len(a) == 1 else a), ((*b, 1) if len(b) == 1 else b)
        if left[-1] == right[-2] or isinstance(left[-1], Sym) or isinstance(right[-2], Sym):
            outer = _outer(op, left[:-2], right[:-2])
            return outer + (a[-2:-1] if len(a) > 1 else ()) + (b[-1:] if len(b) > 1 else ())
    raise _misfit(op)


def _outer(op: Op, left: Shape, right: Shape) -> Shape:
    try:
        return shapes.broadcast(left, right)
    except RedlineError:
        raise _misfit(op) from None


def _misfit(op: Op) -> ModelError:
    allowed = "[..., M, K] and [..., K, N] whose outer axes broadcast"
    return ModelError(op.label, f"{op.name} of {op.type(0)} and {op.type(1)}", allowed)


def _infer_matmul(op: Op) -> list[TensorType]:
    return [TensorType(common_dtype(op), _matmul_shape(op))]


def _matmul_decomposed(op: Op) -> Value | None:
    """A vector is a matrix of one row (left) or one column (right)."""
    a, b = op.value(0), op.value(1)
    if len(a.shape) > 1 and len(b.shape) > 1:
        return None
    left = reshaped(a, (1, *a.shape)) if len(a.shape) == 1 else a
    right = reshaped(b, (*b.shape, 1)) if len(b.shape) == 1 else b
    return reshaped(make("MatMul", left, right), _matmul_shape(op))


define("MatMul", _infer_matmul, plain(np.matmul), _matmul_decomposed)


def _infer_gemm(op: Op) -> list[TensorType]:
    a, b = op.type(0).shape, op.type(1).shape
    dtype = common_dtype(op, [i for i in range(3) if op.has(i)])
    if len(a) != 2 or len(b) != 2:
        raise _misfit(op)
    m, k = reversed(a) if op.attr("transA", 0) else a
    inner, n = reversed(b) if op.attr("transB", 0) else b
    if k != inner:
        raise _misfit(op)
    if op.has(2):
        _check_addend(op, (m, n))
    return [TensorType(dtype, (m, n))]


def _check_addend(op: Op, shape: tuple[Dim, Dim]) -> None:
    if _outer(op, shape, op.type(2).shape) != shape:
        raise ModelError(op.label, f"input C of Gemm is {op.type(2)}", f"it must broadcast to {shapes.text(shape)}")


def _gemm(op: Op, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None) -> np.ndarray:
    """alpha * A' @ B' + beta * C; C is not read where beta is 0."""
    a, b = a.T if op.attr("transA", 0) else a, b.T if op.attr("transB", 0) else b
    product = op.attr("alpha", 1.0) * (a @ b)
    beta = op.attr("beta", 1.0)
    return product if c is None or beta == 0 else product + beta * c


def _scaled(value: Value, factor: float) -> Value:
    return value if factor == 1 else make("Mul", value, scalar(factor, value.dtype))


def _gemm_decomposed(op: Op) -> Value | None:
    """Gemm(A, B, C) -> alpha * MatMul(A', B') + beta * C"""
    alpha, beta = op.attr("alpha", 1.0), op.attr("beta", 1.0)
    if op.type(0).dtype.is_integer and (alpha % 1 or beta % 1):
        return None
    a, b = (transposed(op.value(i), (1, 0) if op.attr(t, 0) else (0, 1)) for i, t in enumerate(("transA", "transB")))
    product = _scaled(make("MatMul", a, b), alpha)
    return make("Add", product, _scaled(op.value(2), beta)) if op.has(2) and beta != 0 else product


define("Gemm", _infer_gemm, widened(_gemm), _gemm_decomposed)


def _infer_det(op: Op) -> list[TensorType]:
    shape = op.type(0).shape
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ModelError(op.label, f"Det of {op.type(0)}", "square matrices")
    return [TensorType(op.type(0).dtype, shape[:-2])]


define("Det", _infer_det, plain(np.linalg.det))
