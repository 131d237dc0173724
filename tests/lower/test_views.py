"""Views against numpy: the elements that a view addresses are those that the move gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline import ops
from redline.base import dtypes
from redline.base.shapes import size
from redline.ir import TensorType, constant, input_node
from redline.lower import views
from redline.lower.program import Buffer, View
from redline.ops import registry

shapes_ = st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=4).map(tuple)


def whole(shape):
    return View.whole(Buffer(0, "temp", dtypes.float32, size(shape)), shape)


def elements(view):
    base = np.arange(view.buffer.num_elements, dtype=np.float32)
    index = np.full((1,) * len(view.shape) or (), view.offset)
    for axis, (extent, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        along = [1] * len(view.shape)
        along[axis] = extent
        index = index + (np.arange(extent) * stride).reshape(along)
    return base[np.broadcast_to(index, view.shape)]


def factors(draw, number):
    found = []
    while number > 1:
        factor = draw(st.sampled_from([d for d in range(2, number + 1) if number % d == 0]))
        found.append(factor)
        number //= factor
    return found


@st.composite
def reshaping(draw):
    shape = draw(shapes_)
    perm = draw(st.permutations(range(len(shape))))
    target = factors(draw, size(shape))
    for _ in range(draw(st.integers(0, 2))):
        target.insert(draw(st.integers(0, len(target))), 1)
    return shape, perm, tuple(target)


@given(reshaping())
def test_reshape_is_numpys_or_impossible(case):
    shape, perm, target = case
    moved = views.transpose(whole(shape), perm)
    result = views.reshape(moved, target)
    array = np.arange(size(shape), dtype=np.float32).reshape(shape).transpose(perm)
    if result is not None:
        np.testing.assert_array_equal(elements(result), array.reshape(target))
    else:
        assert not np.shares_memory(array.reshape(target), array), "numpy finds a view where Redline copies"


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [3], [0], [1]),
        ([-1], [-9], [1], [-1]),
        ([0, 5], [9, 0], [0, 1], [2, -2]),
        ([3], [2], [0], [1]),
        ([-(2**63)], [2**63 - 1], [1], [3]),
    ],
)
def test_slice_is_onnx_slice(starts, ends, axes, steps):
    data = input_node("x", TensorType(dtypes.float32, (4, 7))).out
    arguments = [constant(np.array(values, np.int64)) for values in (starts, ends, axes, steps)]
    node = ops.make_node("Slice", [data, *arguments])
    array = np.arange(28, dtype=np.float32).reshape(4, 7)
    (expected,) = registry.evaluate(node, [array, *(a.array for a in arguments)])
    result = views.forward(registry.view(node), whole((4, 7)), expected.shape)
    assert result is not None
    np.testing.assert_array_equal(elements(result), expected)


def test_expand_repeats_by_stride_zero():
    result = views.expand(whole((3, 1)), (2, 3, 4))
    assert result.strides == (0, 1, 0)
    np.testing.assert_array_equal(elements(result), np.broadcast_to(np.arange(3.0).reshape(3, 1), (2, 3, 4)))


@pytest.mark.parametrize("op", ["Reshape", "Transpose"])
def test_backward_undoes_forward(op):
    data = input_node("x", TensorType(dtypes.float32, (2, 3, 4))).out
    node = (
        ops.make_node("Reshape", [data, constant(np.array([6, 4]))])
        if op == "Reshape"
        else ops.make_node("Transpose", [data], {"perm": (2, 0, 1)})
    )
    shape = node.types[0].shape
    back = views.backward(registry.view(node), whole(shape))
    assert back is not None and back.shape == (2, 3, 4)
    assert views.forward(registry.view(node), back, shape) == whole(shape)
