"""Arithmetic of open extents: the same as that of the integers they stand for, or an error."""

import itertools

import pytest

from redline.base.extents import (
    Extent,
    Undecided,
    at_nominal,
    ceil_div,
    dimension,
    dims_in,
    extents_in,
    formula,
    high,
    low,
    minimum,
    most_where,
    nominal,
    nominal_dims,
    triton_dimension,
    tuned_at,
)  # fmt: skip
from redline.engine.formula import check, value

B, S = dimension(0, 1, 5, 2), dimension(1, 1, 9, 4)
POINTS = list(itertools.product(range(1, 6), range(1, 10)))
FORMS = [
    lambda b, s: b * s * 384, lambda b, s: b * s - 1, lambda b, s: (b * s * 6) // 3, lambda b, s: (b * s + 7) // 4,
    lambda b, s: ceil_div(b * s, 4), lambda b, s: ceil_div(ceil_div(s, 4), 2), lambda b, s: s % 4 + b,
    lambda b, s: minimum(b * s, 16), lambda b, s: minimum(ceil_div(b * s, 3), 7) * 2, lambda b, s: 3 * b + 2 * s + 5,
    lambda b, s: b * (s + 1) - b, lambda b, s: (b * s) // s, lambda b, s: (s - 1) // s + b, lambda b, s: 100 - b * s,
    lambda b, s: abs(b * s), lambda b, s: 11 // s + b,
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_text_of_an_extent_is_its_value(form):
    open_, values = form(B, S), [form(b, s) for b, s in POINTS]
    text = str(open_).replace("/", "//").replace("?", "and").replace(":", "or")  # no value chosen by ? is 0
    assert [eval(text, {"dims": point}) for point in POINTS] == values
    assert low(open_) <= min(values) and max(values) <= high(open_)
    assert nominal(open_) == form(2, 4)


def test_what_is_constant_is_an_integer():
    assert (B - B, B * S - S * B, (B * 7) // B, (B + 1) - B, B * 0) == (0, 0, 7, 1, 0)
    assert all(type(value) is int for value in (B - B, (B * 7) // B, (B + 1) - B))


def test_questions_have_an_answer_only_where_it_is_always_the_same():
    assert B < 6 and B >= 1 and B - 1 < B and B * S <= 45 and bool(B) and not B > 5 and B > 0
    for question in (lambda: B < 3, lambda: B > 1, lambda: B < S, lambda: bool(B - 1), lambda: max(B, S), lambda: S // (B - 1)):
        with pytest.raises(Undecided):
            question()


def test_equality_is_for_all_shapes():
    assert B * S == S * B and hash(B * S) == hash(S * B) and B != S and B != 1 and B * S != B
    assert {B * S: 1}[S * B] == 1


@pytest.mark.parametrize("use", [int, range, lambda e: [0] * e, lambda e: "abc"[e], lambda e: e.bit_length()])
def test_an_extent_is_never_taken_for_a_number(use):
    with pytest.raises((TypeError, AttributeError)):
        use(B)


def test_helpers():
    assert at_nominal((B, (S, 3))) == (2, (4, 3))
    assert nominal_dims((B * S, 7))[:3] == [2, 4, 1]
    assert list(extents_in((1, (B, 2), S))) == [B, S]
    assert isinstance(minimum(B, 3), Extent) and minimum(B, 9) is B


def test_the_most_under_a_bounded_product():
    b, s = triton_dimension(0, 1, 5, 2), triton_dimension(1, 1, 9, 4)
    forms = [
        lambda b, s: b * s * 384,
        lambda b, s: ((b * s + 7) // 8) * 3,
        lambda b, s: b * b,
        lambda b, s: 10 - b,
        lambda b, s: b * s + 2 * s,
    ]
    for form in forms:
        for product in (1, 6, 12, 45):
            seen = max(form(x, y) for x, y in POINTS if x * y <= product)
            assert seen <= most_where(form(b, s), product) <= max(high(form(b, s)), seen)
    assert most_where(b * s * 384, 12) == 12 * 384 and most_where(7, 3) == 7


def test_extents_in_triton_and_as_formulas():
    b, s = triton_dimension(0, 1, 5, 2), triton_dimension(1, 1, 9, 4)
    for form in FORMS:
        open_ = form(b, s)
        if "tl." in str(open_):
            with pytest.raises(Undecided):
                formula(open_)
            continue
        text = str(open_)
        assert dims_in(text) == tuple(sorted({i for i in (0, 1) if f"dims{i}" in text}))
        written = formula(open_)
        check(written, 2)
        for point in POINTS:
            assert eval(text, {"dims0": point[0], "dims1": point[1]}) == value(written, point) == form(*point)
        assert nominal(tuned_at(open_, (3, 7))) == form(3, 7)


@pytest.mark.parametrize("wrong", ["1", [1], [[1, 2]], [[1, -1]], [[1, [1]]], [[1.5]], [[1, [[[1, 3]], 2]]], None, [[]]])
def test_what_is_no_formula(wrong):
    with pytest.raises(ValueError, match="is no"):
        check(wrong, 2)
