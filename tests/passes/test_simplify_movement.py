import pytest

from redline.base import dtypes
from redline.ops import make
from redline.passes import simplify_movement
from redline.passes.simplify_movement import is_lossless
from tests.passes.checking import arg, check, ints, names, only, unchanged

run = simplify_movement.run


def transpose(x, *perm):
    return make("Transpose", x, perm=perm)


def slice_(x, start, end, axis=0, step=1):
    return make("Slice", x, ints(start), ints(end), ints(axis), ints(step))


def cast(x, name):
    return make("Cast", x, to=dtypes.from_name(name).onnx)


def test_reshapes_merge():
    x = arg((2, 12))
    assert names(check(run, make("Reshape", make("Reshape", x, ints(4, 6)), ints(3, 8)))) == ["Reshape"]
    assert names(check(run, make("Reshape", make("Reshape", x, ints(4, 6)), ints(2, -1)))) == []
    assert names(check(run, make("Reshape", arg((0, 3)), ints(3, 0), allowzero=1))) == ["Reshape"]


def test_a_reshape_of_another_reader_keeps_both():
    middle = make("Reshape", arg((2, 12)), ints(4, 6))
    assert names(check(run, make("Reshape", middle, ints(3, 8)), make("Neg", middle))) == ["Neg", "Reshape", "Reshape"]


def test_transposes_merge_or_cancel():
    x = arg((2, 3, 5))
    merged = check(run, transpose(transpose(x, 1, 2, 0), 2, 1, 0))
    assert only(merged, "Transpose").attrs["perm"] == (0, 2, 1)
    assert names(check(run, transpose(transpose(x, 1, 2, 0), 2, 0, 1))) == []
    assert names(check(run, make("Transpose", make("Transpose", x)))) == []
    assert names(check(run, make("Transpose", arg(())))) == []


def test_a_transpose_of_unit_axes_is_a_reshape():
    assert names(check(run, transpose(arg((2, 1, 7, 1)), 1, 0, 3, 2))) == ["Reshape"]
    unchanged(run, transpose(arg((2, 1, 7)), 2, 1, 0))


@pytest.mark.parametrize(
    "chain, expected",
    [
        (("float32", "float32"), 0),
        (("float32", "float64", "float32"), 0),
        (("float16", "float32", "int32"), 1),
        (("int32", "float32", "int32"), 2),
        (("float32", "float16", "float32"), 2),
        (("bool", "int8", "bool"), 0),
        (("bfloat16", "float32", "bfloat16"), 0),
        (("int8", "float32", "float16"), 1),
    ],
)
def test_casts_merge_where_nothing_is_lost(chain, expected):
    value = arg((7,), chain[0])
    for name in chain[1:]:
        value = cast(value, name)
    assert len(names(check(run, value, boundary=(0.0, -0.0, 1.5, 7.0)))) == expected


def test_lossless_types():
    assert is_lossless(dtypes.int16, dtypes.float32) and is_lossless(dtypes.int32, dtypes.float64)
    assert not is_lossless(dtypes.int64, dtypes.float64) and not is_lossless(dtypes.uint64, dtypes.float64)
    assert not is_lossless(dtypes.int8, dtypes.uint8) and not is_lossless(dtypes.float16, dtypes.bfloat16)
    assert not is_lossless(dtypes.int16, dtypes.float16) and is_lossless(dtypes.uint8, dtypes.float16)


@pytest.mark.parametrize(
    "first, second", [((2, 17, 3), (1, 4, 2)), ((0, 17, 1), (5, 9, 1)), ((3, 3, 1), (0, 0, 1)), ((1, 9, 8), (0, 1, 1))]
)
def test_slices_merge(first, second):
    x = arg((17, 3))
    inner = slice_(x, first[0], first[1], 0, first[2])
    assert names(check(run, slice_(inner, second[0], second[1], 0, second[2]))) == ["Slice"]
    assert names(check(run, slice_(inner, 1, 2, 1))) == ["Slice"]


def test_slices_that_stay():
    unchanged(run, slice_(arg((5, 3)), 4, -9, 0, -1))
    backwards = slice_(slice_(arg((5, 3)), 4, -9, 0, -1), 1, 3)
    assert names(check(run, backwards)) == ["Slice", "Slice"]
    assert names(check(run, slice_(arg((5, 3)), 0, 9))) == []


def test_concats():
    x, y, z = (arg((2, n), name=name) for n, name in ((3, "x"), (5, "y"), (1, "z")))
    nested = make("Concat", x, make("Concat", y, z, axis=1), axis=-1)
    assert names(check(run, nested)) == ["Concat"]
    assert names(check(run, make("Concat", x, axis=1))) == []
    inner = make("Concat", y, z, axis=1)
    assert names(check(run, make("Concat", x, inner, axis=1), make("Neg", inner))) == ["Concat", "Concat", "Neg"]
    other = make("Concat", make("Concat", x, x, axis=0), make("Concat", x, x, axis=0), axis=1)
    assert names(check(run, other)) == ["Concat"] * 3


def test_concat_of_all_slices_is_the_whole():
    x, y = arg((6, 4)), arg((6, 4), name="y")
    parts = [slice_(x, 0, 2), slice_(x, 2, 5), slice_(x, 5, 6)]
    assert names(check(run, make("Concat", *parts, axis=0))) == []
    assert "Concat" in names(check(run, make("Concat", parts[1], parts[0], parts[2], axis=0)))
    assert "Concat" in names(check(run, make("Concat", *parts[:2], axis=0)))
    assert "Concat" in names(check(run, make("Concat", parts[0], slice_(y, 2, 6), axis=0)))
    halves = [slice_(parts[0], 0, 2, 1), slice_(x, 2, 6)]
    assert "Concat" in names(check(run, make("Concat", halves[0], slice_(halves[1], 0, 2, 1), axis=0)))


def test_expands_merge():
    x = arg((3, 1))
    assert names(check(run, make("Expand", make("Expand", x, ints(3, 5)), ints(2, 3, 5)))) == ["Expand"]
    assert names(check(run, make("Expand", x, ints(1)))) == []


def test_empty_tensors():
    assert names(check(run, transpose(arg((0, 3, 1)), 2, 0, 1))) == ["Reshape"]
