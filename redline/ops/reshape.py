"""Reshape and the operators that are one in disguise."""

from collections import Counter

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.base.shapes import Dim, Shape, Sym
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define
from redline.ops.rules import reshaped


def _resolve(op: Op) -> Shape:
    """The shape that Reshape asks for, its 0 (copied) and -1 (the rest) settled."""
    source, asked = op.type(0).shape, op.ints(1)
    keep_zero = bool(op.attr("allowzero", 0))
    out: list[Dim] = []
    for i, dim in enumerate(asked):
        if dim == 0 and not keep_zero and i >= len(source):
            raise _mismatch(op, "a 0 copies an axis that the data lacks")
        out.append(source[i] if dim == 0 and not keep_zero else dim)
    if -1 in asked:
        out[asked.index(-1)] = _rest(op, source, [dim for dim in out if dim != -1])
    if _product(source) != _product(out):
        raise _mismatch(op, "as many elements")
    return tuple(out)


def _mismatch(op: Op, rule: str) -> ModelError:
    return ModelError(op.label, f"Reshape of {op.type(0)} to {list(op.ints(1))}", rule)


def _product(dims: Shape | list[Dim]) -> tuple[int, list[str]]:
    """The known part of a number of elements, and the names of its unknown factors."""
    known = shapes.size(dim for dim in dims if isinstance(dim, int))
    return known, sorted(dim.name for dim in dims if isinstance(dim, Sym))


def _rest(op: Op, source: Shape, others: list[Dim]) -> Dim:
    """What a -1 stands for: an integer, or the one symbol that is left over."""
    (total, symbols), (taken, used) = _product(source), _product(others)
    if op.ints(1).count(-1) > 1 or taken == 0 or total % taken:
        raise _mismatch(op, "one -1, and as many elements")
    left = list((Counter(symbols) - Counter(used)).elements())
    if not left:
        return total // taken
    if len(left) > 1 or total != taken:
        shapes.static(source, op.label)
    return Sym(left[0])


def _infer_reshape(op: Op) -> list[TensorType]:
    return [TensorType(op.type(0).dtype, _resolve(op))]


def _reshape(op: Op, data: np.ndarray, shape: np.ndarray) -> np.ndarray:
    asked = [int(dim) for dim in shape]
    if not op.attr("allowzero", 0):
        asked = [data.shape[i] if dim == 0 else dim for i, dim in enumerate(asked)]
    return data.reshape(asked)


define("Reshape", _infer_reshape, _reshape, static=(1,))


def _infer_flatten(op: Op) -> list[TensorType]:
    shape = op.type(0).shape
    axis = int(op.attr("axis", 1))
    if not -len(shape) <= axis <= len(shape):
        raise ModelError(op.label, f"Flatten at axis {axis} of {op.type(0)}", f"allowed: {-len(shape)}..{len(shape)}")
    axis += len(shape) if axis < 0 else 0
    return [TensorType(op.type(0).dtype, (_merged(op, shape[:axis]), _merged(op, shape[axis:])))]


def _merged(op: Op, dims: Shape) -> Dim:
    known, symbols = _product(dims)
    if len(symbols) == 1 and known == 1:
        return Sym(symbols[0])
    return known if not symbols else shapes.size(shapes.static(dims, op.label))


def _infer_squeeze(op: Op) -> list[TensorType]:
    shape = op.type(0).shape
    if op.has(1):
        axes = {shapes.axis_index(axis, len(shape), op.label) for axis in op.ints(1)}
    else:
        axes = {i for i, dim in enumerate(shapes.static(shape, op.label)) if dim == 1}
    if any(shape[axis] != 1 for axis in axes):
        raise ModelError(op.label, f"Squeeze of axes {sorted(axes)} of {op.type(0)}", "their extents must be 1")
    return [TensorType(op.type(0).dtype, tuple(dim for i, dim in enumerate(shape) if i not in axes))]


def _infer_unsqueeze(op: Op) -> list[TensorType]:
    rank = len(op.type(0).shape) + len(op.ints(1))
    axes = {shapes.axis_index(axis, rank, op.label) for axis in op.ints(1)}
    if len(axes) != len(op.ints(1)):
        raise ModelError(op.label, f"Unsqueeze at axes {list(op.ints(1))}", "each axis once")
    rest = iter(op.type(0).shape)
    return [TensorType(op.type(0).dtype, tuple(1 if i in axes else next(rest) for i in range(rank)))]


def _to_reshape(op: Op) -> Value:
    """The same elements in the inferred shape."""
    return reshaped(op.value(0), INFER[op.name](op)[0].shape)


def _disguised(op: Op, data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return data.reshape(shapes.static(INFER[op.name](op)[0].shape, op.label))


INFER = {"Flatten": _infer_flatten, "Squeeze": _infer_squeeze, "Unsqueeze": _infer_unsqueeze}

for _name, _rule in INFER.items():
    define(_name, _rule, _disguised, _to_reshape, static=() if _name == "Flatten" else (1,))
