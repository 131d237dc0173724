"""Coordinate arithmetic: affine forms, ranges, and simplification, which must never change a value."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.base.dtypes import bool_, float32, int64
from redline.kernels import bounds
from redline.kernels.bounds import Affine, affine, interval, simplify
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Call, Expr, Lit, Load, call, index, integer, lit

EXTENTS = (5, 1, 7)
BOX = bounds.box_of(EXTENTS)
i, j, k = (index(axis) for axis in range(3))


def coordinates() -> st.SearchStrategy[Expr]:
    leaves = st.one_of(st.sampled_from([i, j, k]), st.integers(-4, 9).map(integer))

    def extend(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        both = st.tuples(st.sampled_from(["add", "sub", "mul", "max", "min"]), inner, inner)
        divided = st.tuples(st.sampled_from(["floordiv", "mod"]), inner, st.integers(1, 6).map(integer))
        compared = st.tuples(st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]), inner, inner, inner, inner)
        return st.one_of(
            st.one_of(both, divided).map(lambda t: call(t[0], t[1], t[2], dtype=int64)),
            compared.map(lambda t: Call(int64, "where", (call(t[0], t[1], t[2], dtype=bool_), t[3], t[4]))),
        )

    return st.recursive(leaves, extend, max_leaves=8)


@given(coordinates())
@settings(max_examples=300, deadline=None)
def test_simplify_and_interval_hold_everywhere(expr: Expr) -> None:
    values = evaluate(expr, [], EXTENTS)
    np.testing.assert_array_equal(evaluate(simplify(expr, BOX), [], EXTENTS), values)
    known = interval(expr, BOX)
    if known is not None:
        assert known[0] <= values.min() and values.max() <= known[1]
    form = affine(expr)
    if form is not None:
        np.testing.assert_array_equal(evaluate(form.expr(), [], EXTENTS), values)


def test_affine_forms_collect_terms() -> None:
    expr = call("sub", call("add", call("mul", i, integer(6)), k), call("add", i, integer(4)))
    assert affine(expr) == Affine(-4, ((0, 5), (2, 1)))
    assert affine(call("mul", i, k)) is None
    assert affine(call("floordiv", i, integer(2))) is None


def test_divisions_with_a_known_remainder_vanish() -> None:
    flat = call("add", call("mul", i, integer(7)), k)
    assert simplify(call("floordiv", flat, integer(7)), BOX) == i
    assert simplify(call("mod", flat, integer(7)), BOX) == k
    assert simplify(call("floordiv", k, integer(7)), BOX) == integer(0)


def test_quotients_within_sums() -> None:
    """What an upsampling that is written as Reshape, Expand, Reshape reads: half the row, half the column, the channel."""
    box = bounds.box_of((6, 8, 5))
    flat = call("add", call("add", call("mul", i, integer(40)), call("mul", j, integer(5))), k)
    column = call("mod", call("floordiv", flat, integer(10)), integer(4))
    assert simplify(column, box) == call("floordiv", j, integer(2))
    half = call("add", call("add", call("mul", i, integer(20)), call("mul", column, integer(5))), k)
    assert simplify(call("floordiv", half, integer(40)), box) == call("floordiv", i, integer(2))
    assert simplify(call("mod", half, integer(5)), box) == k
    odd = call("mod", call("add", call("mul", i, integer(6)), k), integer(10))  # 6 does not divide 10, but 2 does
    assert simplify(odd, bounds.box_of((6, 8, 2))) == call(
        "add", k, call("mul", call("mod", call("mul", i, integer(3)), integer(5)), integer(2))
    )


def test_decided_conditions_vanish() -> None:
    x, y = lit(1.0, float32), Load(float32, 0, (i,))
    inside = call("and", call("ge", i, integer(0), dtype=bool_), call("lt", k, integer(7), dtype=bool_), dtype=bool_)
    assert simplify(Call(float32, "where", (inside, x, y)), BOX) == x
    open_one = call("and", inside, call("gt", i, integer(2), dtype=bool_), dtype=bool_)
    assert simplify(open_one, BOX) == call("gt", i, integer(2), dtype=bool_)


def test_what_data_decides_has_no_range() -> None:
    assert interval(Load(int64, 0, (i,)), BOX) is None
    assert not bounds.is_coordinate(call("add", i, Load(int64, 0, (i,))))
    assert isinstance(simplify(integer(3), BOX), Lit)
