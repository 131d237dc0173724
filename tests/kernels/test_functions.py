"""Every primitive function: C against numpy on every type that has it, and the accuracy of those we compute ourselves."""

import math

import harness
import numpy as np
import pytest

from redline.base.dtypes import ALL, DType, bfloat16, bool_, float16, float32, float64, int64, uint64
from redline.base.errors import RedlineError
from redline.kernels import functions, matmul, nest
from redline.kernels.expr import Acc, Call, Expr, Lit, Load, call, cast, coordinates, index, lit
from redline.kernels.functions import TABLE
from redline.kernels.problem import Operand

LOGIC = {"and", "or", "xor", "not"}
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf"}
BITS = {"bitand", "bitor", "bitxor", "bitnot", "shl", "shr"}
INTEGERS_TOO = {"add", "sub", "mul", "div", "floordiv", "mod", "fmod", "max", "min", "clamp", "pow", "neg", "abs", "sign"}
ELSEWHERE = {"cast", "branch", "rint32"}  # tested with the loop nests; rint32, for floats below 2^22, with requantization
ABSOLUTE = {"gelu"}  # their small results are right to a number, not to digits: below, with the accuracies
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 7.5, np.inf, -np.inf, np.nan, 1e-40, 3e4, -3e4, 100.0]


def names(dtype: DType) -> list[str]:
    if dtype == bool_:
        return sorted(LOGIC | {"eq", "ne", "where", "max", "min"})
    if dtype.is_float:
        return sorted(set(TABLE) - LOGIC - BITS - ELSEWHERE - ABSOLUTE)
    found = (COMPARISONS - {"isnan", "isinf"}) | BITS | INTEGERS_TOO | {"where"}
    return sorted(found - ({"neg"} if dtype.kind == "u" else set()))


def values(dtype: DType) -> np.ndarray:
    if dtype.is_float:
        return np.array(SPECIAL).astype(dtype.numpy)
    if dtype == bool_:
        return np.array([False, True])
    info = np.iinfo(dtype.numpy)
    small = [v for v in (-9, -2, -1, 0, 1, 2, 3, 7, 40, 70) if v >= info.min]
    return np.array([*small, info.min, info.max], dtype.numpy)


def applied(name: str, dtype: DType, literal: float | None) -> Expr:
    """The function over the loads a, b, c of ``dtype``; its second argument is ``literal`` where that is given."""
    args: list[Expr] = [Load(dtype, i, (index(0),)) for i in range(TABLE[name].arity)]
    if name == "where":
        args[0] = Call(bool_, "ne", (args[0], lit(0, dtype)))
    if literal is not None:
        args[1] = lit(literal, dtype)
    return Call(bool_ if name in COMPARISONS | LOGIC else dtype, name, tuple(args))


def problem(bodies: list[Expr], dtype: DType, size: int) -> nest.Problem:
    writes = tuple(Operand.contiguous(body.dtype, (size,)) for body in bodies)
    return nest.Problem((Operand.contiguous(dtype, (size,)),) * 3, writes, tuple(bodies))


def operands(dtype: DType) -> list[np.ndarray]:
    """Every pair of values, and thirds that vary."""
    one = values(dtype)
    a, b = (grid.reshape(-1) for grid in np.meshgrid(one, one))
    return [a, b, np.resize(one[::-1], a.shape)]


def assert_same(got: np.ndarray, want: np.ndarray, dtype: DType, name: str) -> None:
    assert got.dtype == want.dtype
    if got.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    rtol = {float64: 1e-14, float16: 1e-3, bfloat16: 8e-3}.get(dtype, 3e-6)
    np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol, 1e-37, err_msg=name)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_functions_agree_with_numpy(dtype: DType) -> None:
    used = names(dtype)
    arrays = operands(dtype)
    if dtype.is_float and dtype.size == 2:  # their smallest numbers round differently in the library
        arrays = [np.where(np.abs(a.astype(np.float32)) < 1e-30, 0, a).astype(dtype.numpy) for a in arrays]
    made = problem([applied(name, dtype, None) for name in used], dtype, arrays[0].size)
    got = harness.run(nest.FAMILY, made, nest.Schedule(1), harness.TARGETS["avx512"], arrays)
    for name, g, w in zip(used, got, nest.FAMILY.reference(made, arrays), strict=True):
        assert_same(g, w, dtype, name)


@pytest.mark.parametrize("dtype", [d for d in ALL if d != bool_], ids=str)
def test_literal_arguments_agree_with_numpy(dtype: DType) -> None:
    binary = [name for name in names(dtype) if TABLE[name].arity == 2]
    literals = [0, 1, 2, 3, 0.5, np.inf, np.nan] if dtype.is_float else [0, 1, 2, 3, 7]
    pairs = [(name, value) for name in binary for value in literals if not (name == "pow" and value != value)]
    made = problem([applied(name, dtype, value) for name, value in pairs], dtype, operands(dtype)[0].size)
    arrays = operands(dtype)
    got = harness.run(nest.FAMILY, made, nest.Schedule(1), harness.TARGETS["avx512"], arrays)
    for pair, g, w in zip(pairs, got, nest.FAMILY.reference(made, arrays), strict=True):
        assert_same(g, w, dtype, str(pair))


def dense_grid() -> np.ndarray:
    near = [np.linspace(-110, 95, 300_001), np.linspace(-10, 10, 300_001), np.linspace(-0.01, 0.01, 50_001)]
    far = np.geomspace(1e-44, 3e38, 100_001)
    return np.concatenate([SPECIAL, *near, far, -far]).astype(np.float32)


EXACT = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "gelu": np.vectorize(lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)), otypes=[np.float64]),
}  # fmt: skip


@pytest.mark.parametrize("target", ["avx512", "avx2"])
def test_accuracy_is_as_stated(target: str) -> None:
    grid = dense_grid()
    x, used = Operand.contiguous(float32, grid.shape), list(functions.ACCURACY)
    bodies = tuple(applied(name, float32, None) for name in used)
    made = nest.Problem((x,), (x,) * len(used), bodies)
    got = harness.run(nest.FAMILY, made, nest.Schedule(1), harness.TARGETS[target], [grid])
    for name, result in zip(used, got, strict=True):
        with np.errstate(all="ignore"):
            want = EXACT[name](grid.astype(np.float64))
            rounded = want.astype(np.float32)
            finite = np.isfinite(rounded)
            np.testing.assert_array_equal(result[~finite], rounded[~finite], err_msg=name)
            ulps, absolute = functions.ACCURACY[name]
            error = np.abs(result[finite] - want[finite])
            allowed = ulps * np.spacing(np.abs(rounded[finite])) + absolute
        worst = int(np.argmax(error - allowed))
        assert error[worst] <= allowed[worst], f"{name}({grid[finite][worst]}) is off by {error[worst]}"


@pytest.mark.parametrize("kind", [float32, bfloat16])
def test_gelu_by_looking_up_is_more_exact(kind: DType) -> None:
    """In the epilogue of a product, sixteen at a time: a product with 1, so that its operand is the argument."""
    grid = dense_grid()[: 50_001 * 16].reshape(-1, 48)
    grid = grid[:, :47]  # some columns are left over for the form without a table
    x, one = Operand.contiguous(float32, (len(grid), 1)), Operand.contiguous(float32, (1, 47))
    bias = Operand.contiguous(float32, grid.shape)
    argument = call("add", call("mul", Acc(float32), lit(0, float32)), Load(float32, 2, coordinates(2)))
    body = cast(call("gelu", argument), kind)
    made = matmul.Problem(x, one, Operand.contiguous(kind, grid.shape), body, (bias,))
    zeros = [np.zeros((len(grid), 1), np.float32), np.zeros((1, 47), np.float32)]
    (got,) = harness.run(matmul.FAMILY, made, matmul.Schedule(6, 3), harness.TARGETS["avx512"], [*zeros, grid])
    with np.errstate(all="ignore"):
        want = EXACT["gelu"](grid.astype(np.float64))
    nan = np.isnan(grid)
    assert np.isnan(got[nan].astype(np.float32)).all()
    assert (got[:, :32][grid[:, :32] == np.inf] == np.inf).all() and (got[:, :32][grid[:, :32] == -np.inf] == 0).all()
    finite = np.isfinite(want) & np.isfinite(grid)
    finite[:, 32:] = False
    error = np.abs(got[finite].astype(np.float64) - want[finite])
    rounding = 2.0**-8 * np.abs(want[finite]) if kind == bfloat16 else 0
    assert (error <= 4 * np.spacing(np.abs(want[finite]).astype(np.float32)) + 6e-8 + rounding).all()


@harness.needs_tiles
@pytest.mark.parametrize("kind", [float32, bfloat16])
def test_sigmoid_of_tiles_is_as_exact(kind: DType) -> None:
    """In the epilogue of a product on the matrix unit, sixteen at a time, the last of which overlap.

    What is rounded to bfloat16 has a form within a relative 1.4e-4 before that.
    """
    grid = dense_grid()[: 50_001 * 16].reshape(-1, 48)[:, :31]
    x, one = Operand.contiguous(bfloat16, (len(grid), 2)), Operand.contiguous(bfloat16, (2, 31), True)
    bias = Operand.contiguous(float32, grid.shape)
    argument = call("add", call("mul", Acc(float32), lit(0, float32)), Load(float32, 2, coordinates(2)))
    body = cast(call("sigmoid", argument), kind)
    made = matmul.Problem(x, one, Operand.contiguous(kind, grid.shape), body, (bias,))
    zeros = [np.zeros(operand.shape, bfloat16.numpy) for operand in (x, one)]
    schedule = matmul.FAMILY.schedules(made, harness.TILED)[0]
    (got,) = harness.run(matmul.FAMILY, made, schedule, harness.TILED, [*zeros, grid])
    with np.errstate(all="ignore"):
        want = EXACT["sigmoid"](grid.astype(np.float64))
    nan = np.isnan(grid)
    assert schedule.dot == "amx-bf16" and np.isnan(got[nan].astype(np.float32)).all()
    ulps, absolute = functions.ACCURACY["sigmoid"]
    rounding = (2.0**-8 + 1.4e-4) * want[~nan] if kind == bfloat16 else 0
    error = np.abs(got[~nan].astype(np.float64) - want[~nan])
    assert (error <= ulps * np.spacing(want[~nan].astype(np.float32)) + absolute + rounding).all()


def test_erf_is_within_2e_7() -> None:
    grid = dense_grid()
    x = Operand.contiguous(float32, grid.shape)
    made = nest.Problem((x,), (x,), (applied("erf", float32, None),))
    (got,) = harness.run(nest.FAMILY, made, nest.Schedule(1), harness.TARGETS["avx512"], [grid])
    real = ~np.isnan(grid)
    assert np.abs(got[real] - EXACT["erf"](grid[real].astype(np.float64))).max() <= 2e-7


def test_lookup_offers_the_closest_name() -> None:
    with pytest.raises(RedlineError, match="there is no function 'sigmod'; did you mean 'sigmoid'"):
        functions.lookup("sigmod")


def test_arity_is_that_of_numpy() -> None:
    ones = np.full(3, 0.5, np.float32)
    for function in TABLE.values():
        args = [ones] * function.arity
        if function.name in BITS | LOGIC:
            args = [a.astype(np.int32) for a in args]
        with np.errstate(all="ignore"):
            assert np.asarray(function.numpy(*args)).shape == (3,), function.name


def test_literals_of_every_type_are_exact() -> None:
    for dtype in (int64, uint64):
        info = np.iinfo(dtype.numpy)
        for value in (info.min, info.max):
            made = problem([Lit(dtype, int(value))], dtype, 2)
            (got,) = harness.run(nest.FAMILY, made, nest.Schedule(1), harness.TARGETS["avx512"], [values(dtype)[:2]] * 3)
            assert (got == value).all()
