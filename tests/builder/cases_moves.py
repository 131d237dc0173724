"""What moves data: scatters, gathers, resizes, pads, slices and their like, one node each."""

import numpy as np

from tests.builder.bundle import RNG, Case, Fixed, floats, ints, one

PLACES = np.array([[0, 2, -1], [1, -3, 0]], np.int64)
POINTS = np.array([[0, 1], [-1, 2], [2, 0]], np.int64)
BLOCKS = np.array([[2], [0]], np.int64)
UNPOOLED = np.array([[[[5, 7], [13, 15]]]])
SIZES = np.array([1, 3, 11, 5], np.int64)


def scales(*factors: float) -> Fixed:
    return Fixed(np.array(factors, np.float32))


def resize(name: str, source: np.ndarray, factors: Fixed | None = None, sizes: np.ndarray | None = None, **attrs: str) -> Case:
    return one(f"resize_{name}", "Resize", source, None, factors, None if sizes is None else Fixed(sizes), **attrs)


SCATTERS: list[Case] = [
    one("elements", "ScatterElements", floats(4, 3), PLACES, floats(2, 3), axis=0),
    one("elements_inner", "ScatterElements", floats(4, 5), PLACES, floats(2, 3), axis=1),
    one("elements_added", "ScatterElements", floats(4, 3), np.abs(PLACES) // 2, floats(2, 3), axis=0, reduction="add"),
    one("elements_largest", "ScatterElements", floats(4, 3), np.abs(PLACES) // 2, floats(2, 3), axis=0, reduction="max"),
    one("elements_constant_places", "ScatterElements", floats(4, 3), Fixed(PLACES), floats(2, 3), axis=0),
    one("nd", "ScatterND", floats(3, 4), POINTS, floats(3)),
    one("nd_blocks", "ScatterND", floats(3, 4, 2), BLOCKS, floats(2, 4, 2)),
    one("nd_added", "ScatterND", floats(3, 4), np.zeros((3, 2), np.int64), floats(3), reduction="add"),
    one("nd_multiplied", "ScatterND", floats(3, 4), np.zeros((3, 2), np.int64), floats(3), reduction="mul"),
    one("tensor", "TensorScatter", floats(2, 3, 8, 4), floats(2, 3, 2, 4), np.array([1, 5]), witness=False),
    one(
        "tensor_around", "TensorScatter", floats(2, 8, 4), floats(2, 3, 4), np.array([6, 0]), axis=1, mode="circular",
        witness=False,
    ),
]  # fmt: skip

RESIZES: list[Case] = [
    resize("nearest", floats(1, 3, 5, 7), scales(1, 1, 2, 2), mode="nearest"),
    resize("nearest_asymmetric", floats(1, 3, 5, 7), scales(1, 1, 2, 3), mode="nearest",
           coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    resize("nearest_down", floats(1, 3, 8, 8), scales(1, 1, 0.5, 0.4), mode="nearest"),
    resize("linear", floats(1, 3, 5, 7), scales(1, 1, 2, 2), mode="linear"),
    resize("linear_corners", floats(1, 3, 5, 7), sizes=SIZES, mode="linear", coordinate_transformation_mode="align_corners"),
    resize("linear_torch", floats(1, 3, 5, 7), sizes=SIZES, mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    resize("cubic", floats(1, 2, 6, 6), scales(1, 1, 1.5, 2), mode="cubic"),
    resize("one_dimension", floats(2, 3, 6), scales(1, 1, 2), mode="linear"),
]  # fmt: skip

MOVES: list[Case] = [
    one("gather", "Gather", floats(5, 4), np.array([[0, -1], [3, 3]]), axis=0),
    one("gather_inner", "Gather", floats(5, 4, 3), np.array([2, 0]), axis=1),
    one("gather_one", "Gather", floats(5, 4), Fixed(np.array(-2)), axis=0),
    one("gather_table", "Gather", Fixed(floats(50, 16)), RNG.integers(0, 50, (2, 7)), axis=0),
    one("gather_elements", "GatherElements", floats(3, 3), PLACES, axis=1),
    one("gather_nd", "GatherND", floats(3, 4, 2), POINTS),
    one("gather_nd_batch", "GatherND", floats(3, 4, 2), np.array([[1], [0], [3]]), batch_dims=1),
    one("slice", "Slice", floats(5, 8), ints(1, 2), ints(4, -1)),
    one("slice_backwards", "Slice", floats(5, 8), ints(-1), ints(-9), ints(1), ints(-2)),
    one("slice_of_nothing", "Slice", floats(5, 8), ints(3), ints(3)),
    one("split", "Split", floats(7, 4), ints(2, 4, 1), outputs=("a", "b", "c")),
    one("split_evenly", "Split", floats(4, 7), outputs=("a", "b", "c"), axis=1, num_outputs=3),
    one("concat", "Concat", floats(2, 3), floats(2, 1), floats(2, 4), axis=1),
    one("concat_of_itself", "Concat", floats(2, 3), Fixed(floats(2, 3)), axis=-2),
    one("transpose", "Transpose", floats(3, 17, 5, 2), perm=[2, 0, 3, 1]),
    one("transpose_large", "Transpose", floats(33, 65), perm=[1, 0]),
    one("reshape", "Reshape", floats(3, 4, 5), ints(0, -1)),
    one("expand", "Expand", floats(3, 1), ints(2, 3, 4)),
    one("tile", "Tile", floats(2, 3), ints(2, 3)),
    one("pad", "Pad", floats(3, 4), ints(1, 2, 0, 1)),
    one("pad_negative", "Pad", floats(5, 6), ints(-1, 2, 0, -2)),
    one("pad_reflect", "Pad", floats(4, 5), ints(2, 1, 3, 4), mode="reflect"),
    one("pad_edge", "Pad", floats(4, 5), ints(2, 1), None, ints(1), mode="edge"),
    one("pad_wrap", "Pad", floats(4, 5), ints(2, 1, 3, 2), mode="wrap"),
    one("depth_to_space", "DepthToSpace", floats(1, 8, 3, 2), blocksize=2, mode="CRD"),
    one("space_to_depth", "SpaceToDepth", floats(1, 2, 4, 6), blocksize=2),
    one("upper", "Trilu", floats(2, 5, 4), Fixed(np.array(1))),
    one("lower", "Trilu", floats(5, 7), upper=0),
    one("reverse", "ReverseSequence", floats(4, 3, 2), np.array([1, 4, 2])),
    one("one_hot", "OneHot", np.array([[0, 3], [-1, 2]]), Fixed(np.array(4)), Fixed(np.array([-1, 5], np.float32)), axis=1),
    one("eye", "EyeLike", floats(4, 6), k=1),
    one("compare_and_choose", "Where", floats(3, 4) > 0, floats(3, 4), floats(4)),
    one("unpool", "MaxUnpool", floats(1, 1, 2, 2), Fixed(UNPOOLED), kernel_shape=[2, 2], strides=[2, 2]),
    one("grid", "GridSample", floats(1, 2, 5, 5), floats(1, 3, 4, 2) / 2),
]  # fmt: skip
