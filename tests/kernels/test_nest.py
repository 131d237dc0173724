"""Loop nests against their numpy reference: every loop form, address pattern, type and reduction."""

import harness
import numpy as np
import pytest

from redline.base import dtypes
from redline.base.dtypes import bool_, float32, float64, int8, int32, int64, uint8
from redline.base.errors import RedlineError
from redline.kernels import nest
from redline.kernels.expr import Acc, Expr, Load, call, cast, coordinates, index, integer, lit
from redline.kernels.nest import Problem, Reduction, Schedule
from redline.kernels.problem import Operand

TARGET = harness.TARGETS["avx512"]
SIZES = [1, 2, 15, 16, 17, 31, 33, 64, 65, 200]


def load(operand: int, *at: Expr, dtype: dtypes.DType = float32) -> Expr:
    return Load(dtype, operand, at)


def check(problem: Problem, **options: object) -> None:
    """Reductions are cut into chunks by the same code as the rest, so they are run in one way only."""
    ways = [Schedule(1), Schedule(5)] if problem.reduction is None else [Schedule(3)]
    harness.check(nest.FAMILY, problem, TARGET, ways, **options)


def pointwise(body: Expr, shape: tuple[int, ...], *reads: Operand, out: Operand | None = None) -> Problem:
    return Problem(reads, (out or Operand.contiguous(body.dtype, shape),), (body,))


def reduction(kind: str, body: Expr, shape: tuple[int, ...], extents: tuple[int, ...], *reads: Operand) -> Problem:
    rule = Reduction(kind, extents)
    return Problem(reads, (Operand.contiguous(rule.acc_dtype(body.dtype), shape),), (body,), rule)


@pytest.mark.parametrize("size", SIZES)
def test_chain_of_functions(size: int) -> None:
    x = load(0, index(0), index(1))
    body = call("add", call("mul", x, call("sigmoid", x)), load(1, index(1)))
    check(pointwise(body, (3, size), Operand.contiguous(float32, (3, size)), Operand.contiguous(float32, (size,))))


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_every_type_is_added_and_copied(dtype: dtypes.DType) -> None:
    fn = "xor" if dtype == bool_ else "add"
    operand = Operand.contiguous(dtype, (4, 37))
    body = call(fn, load(0, *coordinates(2), dtype=dtype), load(1, *coordinates(2), dtype=dtype))
    check(pointwise(body, (4, 37), operand, operand), rtol=0)
    copied = load(0, index(1), index(0), dtype=dtype)
    check(pointwise(copied, (37, 4), operand), rtol=0)


@pytest.mark.parametrize("source", dtypes.ALL, ids=str)
def test_casts(source: dtypes.DType) -> None:
    values = np.arange(17).astype(source.numpy)
    values[3] = 100 if source.kind != "b" else 0
    reads, x = (Operand.contiguous(source, (17,)),), load(0, index(0), dtype=source)
    outs = tuple(Operand.contiguous(target, (17,)) for target in dtypes.ALL)
    check(Problem(reads, outs, tuple(cast(x, target) for target in dtypes.ALL)), arrays=[values], rtol=0)
    if source.is_float or source.kind == "i":
        values[5:7] = [-2.75, 0.25] if source.is_float else [-2, -128]
        signed = tuple(out for out in outs if out.dtype.kind in "fib")
        check(Problem(reads, signed, tuple(cast(x, out.dtype) for out in signed)), arrays=[values], rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 17, 40), (2, 64, 7, 9), (1, 130, 33, 1), (2, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [float32, uint8, dtypes.float16, float64], ids=str)
def test_layout_changes(shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    n, c, h, w = shape
    body = load(0, index(0), index(3), index(1), index(2), dtype=dtype)
    check(pointwise(body, (n, h, w, c), Operand.contiguous(dtype, shape)), rtol=0)
    back = load(0, index(0), index(2), index(3), index(1), dtype=dtype)
    check(pointwise(back, (n, c, h, w), Operand.contiguous(dtype, (n, h, w, c))), rtol=0)


def test_transposed_and_straight_loads_together() -> None:
    straight, turned = load(0, index(0), index(1)), load(1, index(1), index(0))
    body = call("add", call("exp", turned), call("mul", straight, turned))
    check(pointwise(body, (50, 37), Operand.contiguous(float32, (50, 37)), Operand.contiguous(float32, (37, 50))))


def test_strided_views_broadcasts_and_gaps() -> None:
    x = Operand(float32, (5, 6, 7), (200, 0, 3))
    y = Operand(float32, (5, 6, 7), (0, 1, 0))
    out = Operand(float32, (5, 6, 7), (100, 9, 1))
    body = call("sub", load(0, *coordinates(3)), load(1, *coordinates(3)))
    check(pointwise(body, (5, 6, 7), x, y, out=out), rtol=0)


def test_padding_and_concatenation_by_where() -> None:
    i = index(1)
    inside = call("and", call("ge", i, integer(2), dtype=bool_), call("lt", i, integer(22), dtype=bool_), dtype=bool_)
    padded = call("where", inside, load(0, index(0), call("sub", i, integer(2))), lit(7.0, float32))
    check(pointwise(padded, (3, 25), Operand.contiguous(float32, (3, 20))), rtol=0)
    first = call("lt", index(0), integer(5), dtype=bool_)
    joined = call("where", first, load(0, index(0), i), load(1, call("sub", index(0), integer(5)), i))
    check(pointwise(joined, (12, 9), Operand.contiguous(float32, (5, 9)), Operand.contiguous(float32, (7, 9))), rtol=0)


def test_condition_on_two_axes_at_once() -> None:
    lower = call("ge", index(0), index(1), dtype=bool_)
    body = call("where", lower, load(0, index(0), index(1)), lit(0.0, float32))
    check(pointwise(body, (19, 23), Operand.contiguous(float32, (19, 23))), rtol=0)


def test_reshape_of_a_transposition_by_division() -> None:
    flat = call("add", call("mul", index(0), integer(40)), index(1))  # [6, 40] seen as [20, 12] transposed
    at = (call("mod", flat, integer(12)), call("floordiv", flat, integer(12)))
    check(pointwise(load(0, *at), (6, 40), Operand.contiguous(float32, (12, 20))), rtol=0)


def test_nearest_resize() -> None:
    at = (call("floordiv", index(0), integer(2)), call("floordiv", index(1), integer(2)), index(2))
    check(pointwise(load(0, *at), (14, 18, 5), Operand.contiguous(float32, (7, 9, 5))), rtol=0)


def test_gather_clamps_foreign_indices() -> None:
    row = load(1, index(0), dtype=int64)
    problem = pointwise(load(0, row, index(1)), (6, 8), Operand.contiguous(float32, (5, 8)), Operand.contiguous(int64, (6,)))
    table = np.arange(40, dtype=np.float32).reshape(5, 8)
    check(problem, arrays=[table, np.array([0, 4, 2, 99, -7, 1 << 60])], rtol=0)


def test_several_outputs_of_one_nest() -> None:
    x = load(0, index(0))
    outs = (Operand.contiguous(float32, (70,)), Operand.contiguous(bool_, (70,)))
    bodies = (call("exp", x), call("gt", x, lit(0.0, float32), dtype=bool_))
    check(Problem((Operand.contiguous(float32, (70,)),), outs, bodies))


def test_coordinates_as_values() -> None:
    body = call("add", cast(index(0), float32), cast(call("mul", index(1), integer(3)), float32))
    check(pointwise(body, (7, 18)), rtol=0)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (1, 1, 1)])
def test_scalars_and_empty_shapes(shape: tuple[int, ...]) -> None:
    body = call("neg", load(0, *coordinates(len(shape))))
    check(pointwise(body, shape, Operand.contiguous(float32, shape)), rtol=0)


KINDS = ("sum", "prod", "max", "min", "argmax", "argmin", "argmax_last", "argmin_last")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 15, 33, 64, 700])
def test_reductions_along_rows_and_columns(kind: str, size: int) -> None:
    x = Operand.contiguous(float32, (5, size))
    values = np.random.default_rng(size).permutation(5 * size).reshape(5, size).astype(np.float32) / (5 * size) + 0.5
    tied = np.round(values * 8) / 8
    for array in (values, tied) if kind.startswith("arg") else (values,):
        check(reduction(kind, load(0, index(0), index(1)), (5,), (size,), x), arrays=[array], rtol=1e-5)
        check(reduction(kind, load(0, index(1), index(0)), (size,), (5,), x), arrays=[array], rtol=1e-5)
        check(reduction(kind, load(0, index(0), index(1)), (), (5, size), x), arrays=[array], rtol=1e-5)
    tall = Operand.contiguous(float32, (size, 5))
    check(reduction(kind, load(0, index(1), index(0)), (5,), (size,), tall), arrays=[values.reshape(size, 5)], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [uint8, int8, int32, int64, float64, dtypes.float16, dtypes.bfloat16], ids=str)
def test_reductions_of_every_type(kind: str, dtype: dtypes.DType) -> None:
    x = Operand.contiguous(dtype, (6, 70))
    values = np.random.default_rng(1).integers(0, 100, (6, 70)).astype(dtype.numpy)
    values = values % dtype.numpy.type(3) if kind == "prod" and dtype.is_integer else values
    values = (values / dtype.numpy.type(60)).astype(dtype.numpy) if kind == "prod" and dtype.is_float else values
    check(reduction(kind, load(0, index(0), index(1), dtype=dtype), (6,), (70,), x), arrays=[values])
    check(reduction(kind, load(0, index(1), index(0), dtype=dtype), (70,), (6,), x), arrays=[values])


@pytest.mark.parametrize("kind", ["max", "min", "argmax", "argmin", "argmax_last", "argmin_last"])
def test_reductions_pass_nan_and_infinities(kind: str) -> None:
    values = np.random.default_rng(2).standard_normal((6, 50)).astype(np.float32)
    values[0, 7] = values[0, 30] = np.nan
    values[1, 3], values[2, 49], values[3, :] = np.inf, -np.inf, -np.inf
    values[4, :] = np.nan
    x = Operand.contiguous(float32, (6, 50))
    check(reduction(kind, load(0, index(0), index(1)), (6,), (50,), x), arrays=[values], rtol=0)
    check(reduction(kind, load(0, index(1), index(0)), (50,), (6,), x), arrays=[values], rtol=0)
    turned = Operand(float32, (6, 50), (1, 6))
    check(reduction(kind, load(0, index(0), index(1)), (6,), (50,), turned), arrays=[values], rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_reductions_over_nothing(kind: str) -> None:
    check(reduction(kind, load(0, index(0), index(1)), (4,), (0,), Operand.contiguous(float32, (4, 0))), rtol=0)


def test_reduction_of_many_axes_with_an_epilogue() -> None:
    x = load(0, index(0), index(2), index(1), index(3))
    mean = call("mul", Acc(float32), lit(1 / 180, float32))
    out = Operand.contiguous(float32, (3, 20))
    epilogue = call("max", call("add", mean, load(1, index(1))), lit(0.0, float32))
    reads = (Operand.contiguous(float32, (3, 9, 20, 20)), Operand.contiguous(float32, (20,)))
    check(Problem(reads, (out,), (x,), Reduction("sum", (9, 20)), (epilogue,)))


def test_two_reductions_at_once() -> None:
    x = load(0, index(0), index(1))
    out = Operand.contiguous(float32, (9,))
    variance = call("sub", Acc(float32, 1), call("mul", Acc(float32, 0), Acc(float32, 0)))
    bodies = (x, call("mul", x, x))
    check(Problem((Operand.contiguous(float32, (9, 300)),), (out,), bodies, Reduction("sum", (300,)), (variance,)))


def test_padded_window_maximum() -> None:
    at = [call("sub", call("add", call("mul", index(a), integer(2)), index(a + 3)), integer(1)) for a in (0, 1)]
    inside = lit(True, bool_)
    for coordinate, extent in zip(at, (13, 15), strict=True):
        low = call("ge", coordinate, integer(0), dtype=bool_)
        high = call("lt", coordinate, integer(extent), dtype=bool_)
        inside = call("and", inside, call("and", low, high, dtype=bool_), dtype=bool_)
    body = call("where", inside, load(0, *at, index(2)), lit(-np.inf, float32))
    check(reduction("max", body, (7, 8, 20), (3, 3), Operand.contiguous(float32, (13, 15, 20))), rtol=0)


def test_long_sums_are_accurate() -> None:
    values = np.random.default_rng(0).random((1, 400_000), np.float32)
    whole = reduction("sum", load(0, index(0), index(1)), (1,), (400_000,), Operand.contiguous(float32, (1, 400_000)))
    check(whole, arrays=[values], rtol=3e-7)
    tall = Operand.contiguous(float32, (100_000, 4))
    columns = reduction("sum", load(0, index(1), index(0)), (4,), (100_000,), tall)
    check(columns, arrays=[values.reshape(100_000, 4)], rtol=3e-7)


@pytest.mark.parametrize("name", ["avx2", "generic"])
def test_other_targets(name: str) -> None:
    target = harness.TARGETS[name]
    x = Operand.contiguous(float32, (20, 37))
    turned = pointwise(call("tanh", load(0, index(1), index(0))), (37, 20), x)
    harness.check(nest.FAMILY, turned, target)
    harness.check(nest.FAMILY, reduction("sum", load(0, index(0), index(1)), (20,), (37,), x), target)


def test_boxes_and_axes_are_as_few_as_possible() -> None:
    shape = (4, 5, 6)
    copy = pointwise(load(0, *coordinates(3)), shape, Operand.contiguous(float32, shape))
    (loops,) = nest.domain.loops_of(copy)
    assert loops.extents == (120,)
    outer = Operand(float32, shape, (60, 6, 1))
    (loops,) = nest.domain.loops_of(pointwise(load(0, *coordinates(3)), shape, outer))
    assert loops.extents == (4, 30)


def test_chunks_follow_the_work() -> None:
    big = pointwise(load(0, index(0)), (1 << 20,), Operand.contiguous(float32, (1 << 20,)))
    small = pointwise(load(0, index(0)), (100,), Operand.contiguous(float32, (100,)))
    assert nest.FAMILY.schedules(big, TARGET) == [Schedule(16)]
    assert nest.FAMILY.schedules(small, TARGET) == [Schedule(1)]


def test_errors_say_what_is_wrong() -> None:
    out = Operand.contiguous(float32, (4,))
    with pytest.raises(RedlineError, match=r"unknown reduction 'sun'; did you mean 'sum'"):
        Reduction("sun", (3,))
    with pytest.raises(RedlineError, match=r"a value of int64 for float32\[4\] in a nest over \[4\]"):
        Problem((), (out,), (index(0),))
    with pytest.raises(RedlineError, match="0 values for 1 writes"):
        Problem((), (out,), ())
