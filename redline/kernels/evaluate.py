"""Expressions computed with numpy: the definition of what generated code must give."""

from collections.abc import Sequence

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.kernels.expr import Acc, Call, Expr, Index, Lit, Load, walk
from redline.kernels.functions import compute_type, extreme, lookup


def evaluate(
    expr: Expr, arrays: Sequence[np.ndarray], extents: Sequence[int], accumulators: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """``expr`` at every coordinate below ``extents``: an array of that shape and of the expression's type.

    ``arrays`` are what Load reads, ``accumulators`` (of shape ``extents``) what Acc gives. A load outside its operand
    reads the nearest element.
    """
    values: dict[Expr, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for node in walk(expr):
            values[node] = _value(node, values, arrays, extents, accumulators)
    return np.array(np.broadcast_to(values[expr].astype(expr.dtype.numpy, copy=False), tuple(extents)))


def _value(
    node: Expr, values: dict[Expr, np.ndarray], arrays: Sequence[np.ndarray], extents: Sequence[int],
    accumulators: Sequence[np.ndarray],
) -> np.ndarray:  # fmt: skip
    if isinstance(node, Lit):
        return _held(np.asarray(node.value).astype(node.dtype.numpy), node.dtype)
    if isinstance(node, Index):
        shape = [1] * len(extents)
        shape[node.axis] = extents[node.axis]
        return np.arange(extents[node.axis], dtype=np.int64).reshape(shape)
    if isinstance(node, Acc):
        return _held(accumulators[node.slot], node.dtype)
    if isinstance(node, Load):
        array = arrays[node.operand]
        index = [np.clip(values[i], 0, max(0, n - 1)) for i, n in zip(node.index, array.shape, strict=True)]
        return _held(_gather(array, index, extents), node.dtype)
    assert isinstance(node, Call)
    args = [values[arg] for arg in node.args]
    if node.fn == "cast":
        return _held(cast(args[0], node.dtype), node.dtype)
    result = np.asarray(lookup(node.fn).numpy(*args))
    return _held(result.astype(node.dtype.numpy), node.dtype)


def _gather(array: np.ndarray, index: Sequence[np.ndarray], extents: Sequence[int]) -> np.ndarray:
    if array.size == 0:
        return np.zeros(np.broadcast_shapes(*(i.shape for i in index)), array.dtype)
    return array[tuple(index)] if index else array[()]


def _held(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The value rounded to ``dtype`` in the type that computations use."""
    return np.asarray(array).astype(compute_type(dtype).numpy, copy=False)


def cast(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Floats truncate towards zero, integers wrap, bool is ``!= 0``; a float out of range wraps through int32 or int64, or
    becomes the largest float8."""
    if dtype == dtypes.bool_:
        return array != 0
    if dtype == dtypes.float8_e4m3fn:
        array = np.clip(array, extreme(dtype, lowest=True), extreme(dtype, lowest=False))
    if array.dtype.kind == "f" and dtype.is_integer and dtype != dtypes.uint64:
        return array.astype(np.int32 if dtype.size < 4 or dtype == dtypes.int32 else np.int64).astype(dtype.numpy)
    return array.astype(dtype.numpy)
