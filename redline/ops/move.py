"""Operators that rearrange or repeat all the elements: Transpose, Concat, Expand, Tile, DepthToSpace, SpaceToDepth."""

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError, RedlineError
from redline.base.shapes import Dim, StaticShape
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import choice, common_dtype, ints, reshaped, transposed


def permutation(op: Op) -> tuple[int, ...]:
    """Where each output axis of a Transpose node comes from."""
    rank = len(op.type(0).shape)
    perm = tuple(int(axis) for axis in op.attr("perm") or reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise ModelError(op.label, f"Transpose of {op.type(0)} with perm {list(perm)}", f"a permutation of 0..{rank - 1}")
    return perm


def _infer_transpose(op: Op) -> list[TensorType]:
    return [TensorType(op.type(0).dtype, tuple(op.type(0).shape[axis] for axis in permutation(op)))]


def _transpose_decomposed(op: Op) -> Value | None:
    """The identical permutation moves nothing."""
    perm = permutation(op)
    return op.value(0) if perm == tuple(range(len(perm))) else None


define("Transpose", _infer_transpose, lambda op, x: np.transpose(x, permutation(op)), _transpose_decomposed)


def _infer_concat(op: Op) -> list[TensorType]:
    inputs = [op.type(i).shape for i in range(len(op.inputs))]
    dtype, rank = common_dtype(op), len(inputs[0])
    axis = op.axis(0, rank)
    others = {shape[:axis] + shape[axis + 1 :] for shape in inputs}
    if len(others) != 1 or any(len(shape) != rank for shape in inputs):
        raise ModelError(
            op.label, f"Concat of {', '.join(map(shapes.text, inputs))} along axis {axis}", "equal extents in the other axes"
        )  # fmt: skip
    along: Dim = sum(shapes.static(tuple(shape[axis] for shape in inputs), op.label)) if len(inputs) > 1 else inputs[0][axis]
    return [TensorType(dtype, (*inputs[0][:axis], along, *inputs[0][axis + 1 :]))]


def _concat(op: Op, *arrays: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays, op.axis(0, arrays[0].ndim))


define("Concat", _infer_concat, _concat, lambda op: op.value(0) if len(op.inputs) == 1 else None)


def _infer_expand(op: Op) -> list[TensorType]:
    try:
        shape = shapes.broadcast(op.type(0).shape, op.ints(1))
    except RedlineError as error:
        raise ModelError(op.label, f"Expand of {op.type(0)} to {list(op.ints(1))}: {error.seen}", "1 or equal") from None
    return [TensorType(op.type(0).dtype, shape)]


def _expand(op: Op, data: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(shape)))


def _expand_decomposed(op: Op) -> Value | None:
    return op.value(0) if _infer_expand(op)[0] == op.type(0) else None


define("Expand", _infer_expand, _expand, _expand_decomposed, static=(1,))


def _infer_tile(op: Op) -> list[TensorType]:
    shape, repeats = op.type(0).shape, op.ints(1)
    if len(shape) != len(repeats) or min(repeats, default=0) < 0:
        raise ModelError(op.label, f"Tile of {op.type(0)} by {list(repeats)}", "one repeat of at least 0 for each axis")
    tiled: list[Dim] = []
    for dim, count in zip(shape, repeats, strict=True):
        tiled.append(dim if count == 1 else count * shapes.static((dim,), op.label)[0])
    return [TensorType(op.type(0).dtype, tuple(tiled))]


def _tile_decomposed(op: Op) -> Value:
    """Tile(x) -> Reshape(Expand(Reshape(x))): each repeated axis gets an axis of its own before it."""
    repeats, shape = op.ints(1), op.shape(0)
    split = [dim for extent, count in zip(shape, repeats, strict=True) for dim in ((1, extent) if count != 1 else (extent,))]
    wide = [dim for extent, count in zip(shape, repeats, strict=True) for dim in ((count, extent) if count != 1 else (extent,))]
    return reshaped(make("Expand", reshaped(op.value(0), tuple(split)), ints(wide)), _infer_tile(op)[0].shape)


define("Tile", _infer_tile, lambda op, data, repeats: np.tile(data, tuple(repeats)), _tile_decomposed, static=(1,))


def _blocked(op: Op, divided: tuple[int, ...]) -> tuple[int, StaticShape]:
    """The block size and the NCHW shape, whose axes ``divided`` it must divide: C by its square, H and W by itself."""
    size, shape = int(op.attr("blocksize", 0)), op.shape(0)
    choice(op, "mode", "DCR", ("DCR", "CRD"))
    if len(shape) != 4 or size < 1 or any(shape[axis] % (size * size if axis == 1 else size) for axis in divided):
        raise ModelError(op.label, f"{op.name} of {op.type(0)} in blocks of {size}", "NCHW data that the blocks tile")
    return size, shape


def _infer_depth_to_space(op: Op) -> list[TensorType]:
    size, (n, c, h, w) = _blocked(op, (1,))
    return [TensorType(op.type(0).dtype, (n, c // size**2, h * size, w * size))]


def _infer_space_to_depth(op: Op) -> list[TensorType]:
    size, (n, c, h, w) = _blocked(op, (2, 3))
    return [TensorType(op.type(0).dtype, (n, c * size**2, h // size, w // size))]


def _depth_to_space_plan(op: Op) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape to see the input in, and the permutation after which the blocks lie in place."""
    size, (n, c, h, w) = int(op.attr("blocksize")), op.shape(0)
    if op.attr("mode", "DCR") == "CRD":
        return (n, c // size**2, size, size, h, w), (0, 1, 4, 2, 5, 3)
    return (n, size, size, c // size**2, h, w), (0, 3, 4, 1, 5, 2)


def _space_to_depth_plan(op: Op) -> tuple[tuple[int, ...], tuple[int, ...]]:
    size, (n, c, h, w) = int(op.attr("blocksize")), op.shape(0)
    perm = (0, 1, 3, 5, 2, 4) if op.attr("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return (n, c, h // size, size, w // size, size), perm


BLOCKS = {
    "DepthToSpace": (_infer_depth_to_space, _depth_to_space_plan),
    "SpaceToDepth": (_infer_space_to_depth, _space_to_depth_plan),
}


def _rearrange(op: Op, x: np.ndarray) -> np.ndarray:
    infer, plan = BLOCKS[op.name]
    split, perm = plan(op)
    return x.reshape(split).transpose(perm).reshape(shapes.static(infer(op)[0].shape))


def _rearranged(op: Op) -> Value:
    """-> Reshape(Transpose(Reshape(x)))"""
    infer, plan = BLOCKS[op.name]
    split, perm = plan(op)
    return reshaped(transposed(reshaped(op.value(0), split), perm), infer(op)[0].shape)


for _name, (_rule, _) in BLOCKS.items():
    define(_name, _rule, _rearrange, _rearranged)
