"""Scans, sorts and scatters in Triton's interpreter against their references: what depends on the order of elements."""

import numpy as np
import pytest
from cuda_kernel_check import PLAIN, check

from redline.base.dtypes import DType, bfloat16, bool_, float16, float32, int32, int64, uint8
from redline.kernels import scan, scatter, sort
from redline.kernels.expr import Load, call, coordinates, index, integer, lit
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.problem import Operand
from redline.kernels.scan.triton import Schedule as Lines
from redline.kernels.scatter.triton import own_axes

dense = Operand.contiguous


def check_all(family: str, problem, most: int = 2, **options) -> None:
    for schedule in list(GPU_FAMILIES[family].schedules(problem, PLAIN))[:most]:
        check(family, problem, schedule, GPU_FAMILIES[family], **options)


@pytest.mark.parametrize("kind", scan.problem.KINDS)
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_scans(kind: str, exclusive: bool, reverse: bool) -> None:
    for shape in [(1,), (3, 17), (2, 3, 33)]:
        body = Load(float32, 0, coordinates(len(shape)))
        x = dense(float32, shape)
        problem = scan.Problem(kind, (x,), x, body, exclusive, reverse)
        check("scan", problem, Lines(2, 16), GPU_FAMILIES["scan"])
        check_all("scan", problem, 1)


@pytest.mark.parametrize("dtype", [float16, bfloat16, int32, int64], ids=str)
def test_scans_of_types_and_strides(dtype: DType) -> None:
    x, out = dense(dtype, (5, 20)), Operand(dtype, (5, 20), (1, 5))
    problem = scan.Problem("sum", (x,), out, Load(dtype, 0, coordinates(2)))
    check_all("scan", problem, 1, tolerance=1e-2 if dtype.size == 2 else None)


def sorting(shape: tuple[int, ...], count: int, dtype: DType = float32, largest: bool = True) -> sort.Problem:
    out = (*shape[:-1], count)
    writes = dense(dtype, out), dense(int64, out)
    return sort.Problem((dense(dtype, shape),), *writes, Load(dtype, 0, coordinates(len(shape))), shape[-1], largest)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("length", "count"), [(1, 1), (10, 3), (33, 33), (150, 64)])
def test_sorts_with_ties_and_nan(length: int, count: int, largest: bool) -> None:
    values = np.round(np.random.default_rng(0).standard_normal((2, 2, length)) * 4).astype(np.float32)
    values[0, 0, :: max(1, length // 3)] = np.nan
    values[1, 0, 0], values[1, 1, -1] = np.inf, -np.inf
    check_all("sort", sorting((2, 2, length), count, largest=largest), arrays=[values], tolerance=1e-30)


@pytest.mark.parametrize("dtype", [float16, bfloat16, uint8, int32, int64], ids=str)
def test_sorts_of_types(dtype: DType) -> None:
    check_all("sort", sorting((2, 70), 70, dtype), 1, highest=40, tolerance=1e-30)


def test_rows_along_another_axis() -> None:
    out = Operand(float32, (4, 7), (1, 4)), Operand(int32, (4, 7), (1, 4))
    check_all("sort", sort.Problem((Operand(float32, (4, 30), (1, 4)),), *out, Load(float32, 0, coordinates(2)), 30))


def elements(dtype: DType, fold: str) -> scatter.Problem:
    """Updates [4, 9] along axis 0 of data [6, 9]."""
    updates, data = dense(dtype, (4, 9)), dense(dtype, (6, 9))
    row = Load(int64, 2, coordinates(2))
    row = call("where", call("lt", row, integer(0), dtype=bool_), call("add", row, integer(6)), row)
    reads = (data, updates, dense(int64, (4, 9)))
    return scatter.Problem(
        reads, data, Load(dtype, 0, coordinates(2)), (4, 9), (row, index(1)), Load(dtype, 1, coordinates(2)), fold
    )


@pytest.mark.parametrize("fold", scatter.problem.FOLDS)
@pytest.mark.parametrize("dtype", [float32, int32, float16], ids=str)
def test_scatters_of_elements(dtype: DType, fold: str) -> None:
    problem, rng = elements(dtype, fold), np.random.default_rng(1)
    assert [(own.of, own.along) for own in own_axes(problem)] == [(1, 1)]
    arrays = [(rng.standard_normal(o.shape) * 5).astype(dtype.numpy) for o in problem.reads[:2]]
    arrays.append(rng.integers(-6, 6, (4, 9)))
    arrays[2][0, :3] = [6, -7, 1 << 40]  # left out
    check_all("scatter", problem, 3, arrays=arrays)


def test_scatters_of_slices() -> None:
    data, updates = dense(float32, (3, 8, 20)), dense(float32, (5, 20))
    place = (Load(int64, 2, (index(0), integer(0))), Load(int64, 2, (index(0), integer(1))), index(1))
    reads = (data, updates, dense(int64, (5, 2)))
    problem = scatter.Problem(reads, data, Load(float32, 0, coordinates(3)), (5, 20), place, Load(float32, 1, coordinates(2)))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(o.shape).astype(np.float32) for o in reads[:2]]
    arrays.append(np.array([[0, 1], [2, 7], [1, 1], [0, 1], [2, 8]]))
    check_all("scatter", problem, 3, arrays=arrays, tolerance=1e-30)


def test_scatters_to_shifted_places() -> None:
    """Both axes are known from the result, one of them three further on; nothing is searched."""
    place = (call("add", index(0), integer(3)), call("sub", index(1), integer(1)))
    body = Load(float32, 0, coordinates(2))
    problem = scatter.Problem((dense(float32, (4, 9)),), dense(float32, (8, 7)), lit(1.5, float32), (4, 9), place, body)
    check_all("scatter", problem, 3)


@pytest.mark.parametrize("extents", [(0,), (7,)])
def test_constant_fill_and_empty_updates(extents: tuple[int, ...]) -> None:
    out = Operand(float32, (4, 5), (1, 4))
    place = (integer(2), call("mod", index(0), integer(5)))
    check_all("scatter", scatter.Problem((), out, lit(1.5, float32), extents, place, lit(2.0, float32), "add"))
