"""The other kernel families in Triton's interpreter against their references."""

import numpy as np
import pytest
from cuda_interpreter import Tensor, run
from cuda_kernel_check import PLAIN, check

from redline.base.dtypes import bfloat16, bool_, float16, float32, int8, int16, int32, int64, uint8, uint16
from redline.kernels import attention, nest, pool, row
from redline.kernels.depthwise.problem import LIMIT
from redline.kernels.depthwise.problem import Problem as Depthwise
from redline.kernels.expr import Acc, Load, call, cast, coordinates, index, integer, lit
from redline.kernels.gpu import GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.nest.problem import Reduction
from redline.kernels.pool.problem import Window
from redline.kernels.problem import Operand

dense = Operand.contiguous


def check_all(family: str, problem, most: int = 2, **options) -> None:
    for schedule in list(GPU_FAMILIES[family].schedules(problem, PLAIN))[:most]:
        check(family, problem, schedule, GPU_FAMILIES[family], **options)


@pytest.mark.parametrize("channels", [24, 33])
@pytest.mark.parametrize("strides, pads", [((1, 1), (1, 1, 1, 1)), ((2, 2), (0, 1, 1, 0))])
def test_depthwise(channels: int, strides, pads) -> None:
    height = (9 + pads[0] + pads[2] - 3) // strides[0] + 1
    width = (7 + pads[1] + pads[3] - 3) // strides[1] + 1
    total = call("add", Acc(float32), cast(Load(float16, 2, (index(3),)), float32))
    epilogue = cast(call("min", call("max", total, lit(0.0, float32)), lit(6.0, float32)), float16)
    problem = Depthwise(
        dense(float16, (2, 9, 7, channels)), dense(float16, (channels, 1, 3, 3), True),
        dense(float16, (2, height, width, channels)), epilogue, (dense(float16, (channels,), True),), strides, (1, 1), pads,
        channels,
    )  # fmt: skip
    check_all("depthwise", problem)


@pytest.mark.parametrize("x, w, pad, limit", [(uint16, float32, 0, LIMIT), (uint8, int8, 200, 0)], ids=["fixed", "bytes"])
def test_depthwise_of_integers(x, w, pad: int, limit: int) -> None:
    """Numbers of fixed point with float32 filters; bytes whose padding has its leading bit set."""
    kind = float32 if w == float32 else int32
    problem = Depthwise(
        dense(x, (2, 9, 7, 24)), dense(w, (24, 1, 3, 3), True), dense(kind, (2, 9, 7, 24)), Acc(kind), (), (1, 1), (1, 1),
        (1, 1, 1, 1), 24, pad, limit,
    )  # fmt: skip
    check_all("depthwise", problem, highest=LIMIT - 1 if limit else 60)
    family, target = GPU_FAMILIES["depthwise"], GpuTarget(90)
    code = family.render(problem, family.schedules(problem, target)[0], target)
    assert ("rl_upper(" in code.text) == bool(limit) and "other=200" not in code.text
    if limit:  # 2^16 taps, and a row that takes the 2^15 of each away
        rows = code.packings[1].apply(np.ones((24, 1, 3, 3), np.float32))
        assert np.all(rows[:9] == 2 * LIMIT) and np.all(rows[9] == -9 * LIMIT)


@pytest.mark.parametrize("kind", pool.problem.KINDS)
@pytest.mark.parametrize("count_padding", [False, True])
def test_pool(kind: str, count_padding: bool) -> None:
    windows = (Window(3, 2, 1, 1, 1), Window(3, 2, 1, 1, 1))
    problem = pool.Problem(
        kind,
        (dense(float16, (2, 9, 7, 19)),),
        dense(float16, (2, 5, 4, 19)),
        windows,
        cast(Acc(float32), float16),
        count_padding,
    )
    check_all("pool", problem)


@pytest.mark.parametrize("dtype, least", [(int8, -128), (int16, -(1 << 15))], ids=str)
def test_maxima_of_negative_integers(dtype, least: int) -> None:
    """Of numbers below -1, which a padding that is not the lowest number outdoes."""
    windows = (Window(3, 2, 1, 1, 1),) * 2
    problem = pool.Problem("max", (dense(dtype, (2, 9, 7, 19)),), dense(dtype, (2, 5, 4, 19)), windows, Acc(dtype))
    check_all("pool", problem, highest=(least, -1))
    family, target = GPU_FAMILIES["pool"], GpuTarget(90)
    assert f"other={least}" not in family.render(problem, family.schedules(problem, target)[0], target).text


@pytest.mark.parametrize("kind", row.problem.KINDS)
@pytest.mark.parametrize("length", [33, 64, 1])
def test_row(kind: str, length: int) -> None:
    prologue = cast(Load(float16, 0, coordinates(3)), float32)
    epilogue = cast(call("mul", Acc(float32), Load(float32, 1, (index(2),))), float16)
    out = dense(float16, (2, 5, length))
    check_all(
        "row", row.Problem(kind, (dense(float16, (2, 5, length)), dense(float32, (length,))), (out,), prologue, epilogue, 1e-5)
    )
    both = (dense(float32, (7, length)), dense(float32, (7, length)))
    plain = row.Problem(kind, (dense(float32, (7, length)),), both, Load(float32, 0, coordinates(2)), Acc(float32), 1e-5)
    check_all("row", plain, tolerance=1e-4)


@pytest.mark.parametrize("causal", [None, 0, 2])
@pytest.mark.parametrize("b, h, kv, q, k, d", [(1, 2, 2, 33, 40, 24), (2, 4, 2, 16, 64, 32), (2, 2, 2, 1, 21, 16)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(b: int, h: int, kv: int, q: int, k: int, d: int, causal, masked: bool) -> None:
    reads = (dense(float16, (b, h, q, d)), dense(float16, (b, kv, k, d)), dense(float16, (b, kv, k, d)))
    score = attention.problem.scaled(0.2)
    if masked:
        reads += (dense(float32, (1, 1, q, k)),)
        score = call("add", score, Load(float32, 3, (integer(0), integer(0), index(2), index(3))))
    check_all("attention", attention.Problem(reads, dense(float16, (b, h, q, d)), score, causal))


def test_attention_in_bfloat16() -> None:
    reads = (dense(bfloat16, (1, 2, 20, 16)),) * 3
    problem = attention.Problem(reads, dense(bfloat16, (1, 2, 20, 16)), attention.problem.scaled(0.3))
    check_all("attention", problem, 1, tolerance=1e-2)


def test_pointwise_transposes_and_broadcasts() -> None:
    i, j, k = coordinates(3)
    body = cast(call("add", Load(float32, 0, (i, k, j)), call("exp", Load(float32, 1, (k,)))), float16)
    problem = nest.Problem((dense(float32, (3, 20, 17)), dense(float32, (20,))), (dense(float16, (3, 17, 20)),), (body,))
    check_all("nest", problem)


def test_padding_never_reads_outside() -> None:
    i, j, k = coordinates(3)
    inside = call("and", call("ge", j, integer(2), dtype=bool_), call("lt", j, integer(7), dtype=bool_), dtype=bool_)
    body = call("where", inside, Load(float32, 0, (i, call("sub", j, integer(2)), k)), lit(0.0, float32))
    check_all("nest", nest.Problem((dense(float32, (3, 5, 6)),), (dense(float32, (3, 9, 6)),), (body,)))


def test_gathers_are_clamped() -> None:
    body = Load(float32, 1, (Load(int64, 0, (index(0),)), index(1)))
    problem = nest.Problem((dense(int64, (9,)), dense(float32, (3, 8))), (dense(float32, (9, 8)),), (body,))
    check_all("nest", problem, highest=3)


@pytest.mark.parametrize(
    "fn", ["abs", "floor", "ceil", "sqrt", "rsqrt", "exp", "log", "sin", "cos", "tanh", "erf", "sigmoid", "neg", "sign"]
)
def test_functions(fn: str) -> None:
    x = Load(float32, 0, (index(0),))
    body = call(fn, call("abs", x) if fn in ("sqrt", "rsqrt", "log") else x)
    check_all("nest", nest.Problem((dense(float32, (300,)),), (dense(float32, (300,)),), (body,)), 1, tolerance=1e-6)


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min", "argmax", "argmin", "argmax_last", "argmin_last"])
def test_reductions(kind: str) -> None:
    out = int64 if kind.startswith("arg") else float32
    body = Load(float32, 0, (index(0), index(2), index(3), index(1)))
    problem = nest.Problem((dense(float32, (3, 5, 7, 11)),), (dense(out, (3, 11)),), (body,), Reduction(kind, (5, 7)))
    check_all("nest", problem)
    ties = nest.Problem(
        (dense(int64, (30, 5)),), (dense(int64, (30,)),), (Load(int64, 0, coordinates(2)),), Reduction(kind, (5,))
    )
    check_all("nest", ties)


def test_rounding() -> None:
    """Halves to even, numbers without fractions, infinities; and as integers, where they are small."""
    values = np.array([0.5, 1.5, -0.5, -2.5, 2.4999998, 4194303.5, -4194305.0, 3e9, np.inf, -np.inf, np.nan, 0.0], np.float32)
    for fn, dtype, given in (("rint", float32, values), ("rint32", int32, values[:5])):
        n = len(given)
        body = call(fn, Load(float32, 0, (index(0),)), dtype=dtype)
        problem = nest.Problem((dense(float32, (n,)),), (dense(dtype, (n,)),), (body,))
        code = GPU_FAMILIES["nest"].render(problem, GPU_FAMILIES["nest"].schedules(problem, PLAIN)[0], PLAIN)
        out = np.empty(n, dtype.numpy)
        run(code.text, code.grid, [Tensor.of(given), Tensor.of(out)], {})
        assert np.array_equal(out, np.rint(given).astype(dtype.numpy), equal_nan=True)
