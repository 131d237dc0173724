"""Numbers that differ between shapes become polynomials, exactly, or the model is refused."""

import pytest

from redline.base.errors import BuildError
from redline.base.extents import dimension
from redline.base.shapes import ShapeRange, Sym, parse_shapes
from redline.builder.shapes import profile
from redline.lower.opening import Fit

DIMS = [dimension(0, 1, 32, 8), dimension(1, 1, 512, 128)]
POINTS = [(3, 5), (11, 5), (3, 13), (11, 13), (19, 29), (11, 29), (32, 512)]


@pytest.mark.parametrize(
    "form",
    [
        lambda b, s: b * s * 384, lambda b, s: b * s * s, lambda b, s: 7 * s + 1, lambda b, s: b * s + 3 * b - 2,
        lambda b, s: s * s + b, lambda b, s: 5 * b * b,
    ],
)  # fmt: skip
def test_polynomials_are_found(form):
    assert Fit(POINTS, DIMS)(tuple(form(*point) for point in POINTS), "x") == form(*DIMS)


@pytest.mark.parametrize("form", [lambda b, s: s // 2, lambda b, s: max(s, 128), lambda b, s: b**3, lambda b, s: s % 8])
def test_what_is_none_is_refused(form):
    with pytest.raises(BuildError, match=r"\[--shapes\] the thing is .* at \(3, 5\).*: no polynomial of the open dimensions"):
        Fit(POINTS, DIMS)(tuple(form(*point) for point in POINTS), "the thing")


def test_ranges_on_the_command_line():
    found = parse_shapes(["ids:1x1,8x128,32x512", "mask:1x128", "scale:"])
    assert found == {"ids": ShapeRange((1, 1), (8, 128), (32, 512)), "mask": (1, 128), "scale": ()}


@pytest.mark.parametrize("text", ["ids:1x1,8x128", "ids:1,1x2,3", "ids:2x1,1x8,3x9", "ids:0x1,1x1,2x2", "ids:1x1,,2x2"])
def test_ranges_that_are_none(text):
    with pytest.raises(Exception, match=r"\[--shapes\]"):
        parse_shapes([text])


def test_axes_of_one_symbol_are_one_dimension():
    batch, length = Sym("batch"), Sym("length")
    span = ShapeRange((1, 1), (2, 16), (4, 64))
    found = profile({"a": span, "b": span, "c": (3,)}, {"a": (batch, length), "b": (batch, length), "c": (3,)})
    assert [(d.name, d.min, d.opt, d.max) for d in found.dims] == [("batch", 1, 2, 4), ("length", 1, 16, 64)]
    assert found.at((2, 7)) == {"a": (2, 7), "b": (2, 7), "c": (3,)}
    points = found.points()
    assert points[-1] == (4, 64) and len(set(points)) == len(points) > 4


def test_ranges_that_disagree_and_axes_that_the_model_fixes():
    batch = Sym("batch")
    with pytest.raises(BuildError, match="two inputs give dimension 'batch' different ranges"):
        profile({"a": ShapeRange((1,), (2,), (9,)), "b": ShapeRange((1,), (2,), (8,))}, {"a": (batch,), "b": (batch,)})
    with pytest.raises(BuildError, match="axis 0 of 'a' is 640 in the model"):
        profile({"a": ShapeRange((320,), (640,), (1280,))}, {"a": (640,)})


def test_a_range_of_one_shape_is_no_profile():
    assert profile({"a": ShapeRange((2, 3), (2, 3), (2, 3))}, {"a": (2, 3)}) is None
