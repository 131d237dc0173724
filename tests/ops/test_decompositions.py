"""Decompositions on shapes that the standard's cases do not reach, against the reference and ONNX Runtime."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from redline import ops
from redline.base import dtypes
from redline.ir import Graph, TensorType, constant, input_node
from redline.passes import decompose
from tests.ops.build import both, ints

RNG = np.random.default_rng(7)


def data(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ort(op: str, inputs: list[np.ndarray], **attrs: Any) -> np.ndarray:
    """What ONNX Runtime makes of one node."""
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    names = [f"x{i}" for i in range(len(inputs))]
    declared = [helper.make_tensor_value_info(n, kinds[a.dtype], a.shape) for n, a in zip(names, inputs, strict=True)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attrs)], "g", declared, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(zip(names, inputs, strict=True)))[0])


def left_over(op: str, *inputs: Any, **attrs: Any) -> set[str]:
    """The operators that remain of a node on runtime data."""
    declared = [
        input_node(f"x{i}", TensorType(dtypes.from_numpy(a.dtype), a.shape)) if isinstance(a, np.ndarray) else None
        for i, a in enumerate(inputs)
    ]
    values = [node.out if node else item for node, item in zip(declared, inputs, strict=True)]
    node = ops.make_node(op, values, attrs)
    graph = Graph(op, tuple(n for n in declared if n), tuple((str(i), v) for i, v in enumerate(node.outputs())))
    return {n.op for n in decompose.run(graph, whole=frozenset()).operations}


EQUATIONS = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("bhqd,bhkd->bhqk", (2, 3, 5, 4), (2, 3, 6, 4)),
    ("bqhd,bkhd->bhqk", (2, 5, 3, 4), (2, 6, 3, 4)),
    ("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 6)),
    ("...ij,...jk", (2, 3, 4), (4, 6)),
    ("i,j->ij", (3,), (4,)),
    ("i,i->", (7,), (7,)),
    ("ij,ij->i", (3, 4), (3, 4)),
    ("ij,kl->ik", (3, 4), (5, 6)),
    ("bij,j->bi", (2, 3, 4), (1,)),
    ("ij->ji", (3, 4)),
    ("ij->", (3, 4)),
    ("ii->i", (4, 4)),
    ("ii", (4, 4)),
    ("biij->bj", (2, 3, 3, 4)),
    ("iii->i", (3, 3, 3)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("ab,bc,cd->", (2, 3), (3, 4), (4, 5)),
    ("b...,b...->...b", (2, 3, 4), (2, 3, 4)),
    ("ji,j->i", (1, 4), (3,)),
    ("iJ,Jk", (2, 3), (3, 4)),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=lambda case: case[0])
def test_einsum(case: tuple[Any, ...]) -> None:
    equation, *sizes = case
    arrays = [data(*size) for size in sizes]
    np.testing.assert_allclose(both("Einsum", *arrays, equation=equation), np.einsum(equation, *arrays), rtol=1e-4, atol=1e-5)
    assert left_over("Einsum", *arrays, equation=equation) <= {"Transpose", "Reshape", "MatMul", "Mul", "ReduceSum", "Slice"}


SLICES = [
    ([1], [5], [0], [1]),
    ([-3], [2**62], [0], [1]),
    ([2**62], [-(2**62)], [0], [-1]),
    ([-100], [100], [1], [3]),
    ([4], [-100], [0], [-2]),
    ([-2], [0], [0], [-1]),
    ([5, -1], [2, 0], [0, -1], [-1, -2]),
    ([3], [3], [0], [1]),
    ([5], [2], [1], [1]),
    ([0, 0], [2**31 - 1, 2**31 - 1], [0, 1], [1, 2]),
]


@pytest.mark.parametrize("bounds", SLICES, ids=str)
def test_slice(bounds: tuple[list[int], ...]) -> None:
    x = data(7, 6)
    wanted = ort("Slice", [x, *(np.array(b, np.int64) for b in bounds)])
    np.testing.assert_array_equal(both("Slice", x, *(ints(*b) for b in bounds)), wanted)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [(1, 2, 3, 1), (0, 0, 0, 0), (-1, 2, 2, -2), (-2, -1, 0, -1)], ids=str)
def test_pad(mode: str, pads: tuple[int, ...]) -> None:
    x = data(5, 6)
    seen = both("Pad", x, ints(*pads), mode=mode)
    if mode == "constant" or min(pads) >= 0:
        np.testing.assert_array_equal(seen, ort("Pad", [x, np.array(pads)], mode=mode))
    kept = x[max(0, -pads[0]) : 5 - max(0, -pads[2]), max(0, -pads[1]) : 6 - max(0, -pads[3])]
    widths = [(max(0, pads[0]), max(0, pads[2])), (max(0, pads[1]), max(0, pads[3]))]
    np.testing.assert_array_equal(seen, np.pad(kept, widths, mode=mode))


def test_pad_with_a_fill_known_at_run_time() -> None:
    x, fill = data(2, 3), np.array(9, np.float32)
    assert both("Pad", x, ints(1, 1), fill, ints(-1)).tolist() == np.pad(x, [(0, 0), (1, 1)], constant_values=9).tolist()


@pytest.mark.parametrize(
    "indices", [3, -1, [0, 1, 2], [5, 3, 1], [-1, -2], [2, 2], [[0, 1], [2, 3]], [0, 2, 3], [4, 3, 2, 1, 0]]
)
@pytest.mark.parametrize("axis", [0, -1])
def test_gather(indices: Any, axis: int) -> None:
    x, where = data(6, 7), np.array(indices, np.int64)
    wanted = np.take(x, where, axis)
    np.testing.assert_array_equal(both("Gather", x, constant(where), axis=axis), wanted)
    np.testing.assert_array_equal(both("Gather", x, where, axis=axis), wanted)


def test_even_gathers_become_slices() -> None:
    x = data(6, 7)
    assert left_over("Gather", x, ints(1, 3, 5)) == {"Slice"}
    assert left_over("Gather", x, constant(np.array(2))) == {"Slice", "Reshape"}
    assert left_over("Gather", x, ints(0, 1, 2, 3, 4, 5)) == set()
    assert left_over("Gather", x, ints(0, 2, 3)) == {"Gather"}


def test_gather_elements_in_a_smaller_box() -> None:
    x, where = data(4, 5), np.array([[0, -1, 2]], np.int64)
    np.testing.assert_array_equal(both("GatherElements", x, where, axis=0), ort("GatherElements", [x, where], axis=0))


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_gather_nd(batch: int) -> None:
    x, where = data(2, 3, 4, 5), RNG.integers(-2, 2, (2, 3, 2, 2))
    where = where if batch < 2 else where[..., :1]
    wanted = ort("GatherND", [x, where], batch_dims=batch)
    np.testing.assert_array_equal(both("GatherND", x, where, batch_dims=batch), wanted)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatters(reduction: str) -> None:
    x, where, updates = data(4, 5), np.array([[0, 2], [3, -4]], np.int64), data(2, 2)
    seen = both("ScatterElements", x, where, updates, axis=1, reduction=reduction)
    np.testing.assert_allclose(seen, ort("ScatterElements", [x, where, updates], axis=1, reduction=reduction))
    rows, lines = np.array([[1], [3]], np.int64), data(2, 5)
    seen = both("ScatterND", x, rows, lines, reduction=reduction)
    np.testing.assert_allclose(seen, ort("ScatterND", [x, rows, lines], reduction=reduction))


@pytest.mark.parametrize(("size", "count"), [(7, 3), (6, 3), (1, 1), (9, 4)])
def test_split_into_equal_parts(size: int, count: int) -> None:
    both("Split", data(2, size), axis=1, num_outputs=count, outputs=count)
    assert left_over("Split", data(2, size), axis=1, num_outputs=count) <= {"Slice"}


@pytest.mark.parametrize("repeats", [(1, 1), (2, 1), (3, 2), (0, 2)], ids=str)
def test_tile(repeats: tuple[int, ...]) -> None:
    x = data(2, 3)
    np.testing.assert_array_equal(both("Tile", x, ints(*repeats)), np.tile(x, repeats))


@pytest.mark.parametrize(
    "flags", [{}, {"transA": 1}, {"transB": 1}, {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}], ids=str
)
@pytest.mark.parametrize("addend", [(), (5,), (3, 1), (3, 5), None], ids=str)
def test_gemm(flags: dict[str, Any], addend: tuple[int, ...] | None) -> None:
    a = data(*((4, 3) if flags.get("transA") else (3, 4)))
    b = data(*((5, 4) if flags.get("transB") else (4, 5)))
    arrays = [a, b] if addend is None else [a, b, data(*addend)]
    np.testing.assert_allclose(both("Gemm", *arrays, **flags), ort("Gemm", arrays, **flags), rtol=1e-4, atol=1e-5)
    assert left_over("Gemm", *arrays, **flags) <= {"Transpose", "MatMul", "Mul", "Add"}


def test_gemm_does_not_read_what_beta_cancels() -> None:
    a, b, c = data(2, 3), data(3, 2), np.full((2, 2), np.nan, np.float32)
    assert np.isfinite(both("Gemm", a, b, c, beta=0.0)).all()


@pytest.mark.parametrize("sizes", [((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5))], ids=str)
def test_matmul_of_vectors(sizes: tuple[tuple[int, ...], ...]) -> None:
    a, b = data(*sizes[0]), data(*sizes[1])
    np.testing.assert_allclose(both("MatMul", a, b), a @ b, rtol=1e-5)
    assert left_over("MatMul", a, b) == {"MatMul", "Reshape"}


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space_are_inverse(mode: str) -> None:
    x = data(2, 12, 3, 4)
    there = both("DepthToSpace", x, blocksize=2, mode=mode)
    np.testing.assert_array_equal(there, ort("DepthToSpace", [x], blocksize=2, mode=mode))
    np.testing.assert_array_equal(both("SpaceToDepth", there, blocksize=2, mode=mode), x)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot(axis: int) -> None:
    indices, values = np.array([[0, -1, 7], [2, 3, -5]], np.int64), np.array([2, 9], np.float32)
    seen = both("OneHot", indices, ints(4), values, axis=axis)
    assert np.moveaxis(seen, axis, -1)[0].tolist() == [[9, 2, 2, 2], [2, 2, 2, 9], [2, 2, 2, 2]]
    assert "OneHot" not in left_over("OneHot", indices, ints(4), values, axis=axis)


@pytest.mark.parametrize("axis", [None, 0, -1])
def test_compress(axis: int | None) -> None:
    x, condition = data(3, 4), np.array([False, True, True])
    attrs = {} if axis is None else {"axis": axis}
    np.testing.assert_array_equal(both("Compress", x, constant(condition), **attrs), np.compress(condition, x, axis))


def test_unique_in_order_of_appearance() -> None:
    x = constant(np.array([[2, 1], [2, 1], [0, 5]], np.int32))
    node = ops.make_node("Unique", [x], {"axis": 0, "sorted": 0})
    values, first, inverse, counts = ops.evaluate(node, [x.array])
    assert (values.tolist(), first.tolist(), inverse.tolist(), counts.tolist()) == ([[2, 1], [0, 5]], [0, 2], [0, 0, 1], [2, 1])


@pytest.mark.parametrize(("n", "op"), [(1, "Max"), (2, "Max"), (3, "Max"), (1, "Sum"), (3, "Sum"), (1, "Mean"), (3, "Mean")])
def test_variadic_operators_become_chains(n: int, op: str) -> None:
    arrays = [data(2, 3), data(3), data(2, 1)][:n]
    both(op, *arrays)
    assert left_over(op, *arrays) <= {"Max", "Add", "Div"}


def test_movement_that_moves_nothing_vanishes() -> None:
    x = data(2, 3)
    assert left_over("Identity", x) == left_over("Transpose", x, perm=(0, 1)) == left_over("Expand", x, ints(1, 3)) == set()
    assert left_over("Pad", x, ints(0, 0, 0, 0)) == left_over("Slice", x, ints(0), ints(9)) == left_over("Concat", x) == set()
    assert left_over("Flatten", data(2, 3, 4)) == left_over("Squeeze", data(2, 1)) == {"Reshape"}
    assert left_over("Shape", x) == left_over("Size", x) == left_over("EyeLike", x) == set()


def test_center_crop_pad_is_a_pad() -> None:
    x = data(5, 4)
    seen = both("CenterCropPad", x, ints(2, 7))
    assert seen.shape == (2, 7) and left_over("CenterCropPad", x, ints(2, 7)) == {"Pad"}
    np.testing.assert_array_equal(seen[:, 1:5], x[1:3])


def test_tensor_scatter_wraps_around() -> None:
    cache, update, starts = data(2, 5, 3), data(2, 2, 3), np.array([4, 0], np.int64)
    seen = both("TensorScatter", cache, update, starts, mode="circular")
    np.testing.assert_array_equal(seen[0, [4, 0]], update[0])
    np.testing.assert_array_equal(seen[1, 2:], cache[1, 2:])
