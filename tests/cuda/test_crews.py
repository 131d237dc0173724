"""Kernels in CUDA C: which problems have one, that they fit the processor, and that NVRTC compiles them."""

import math
import re

import numpy as np
import pytest

from redline.base.dtypes import float16, float32
from redline.base.errors import CompilerError
from redline.codegen.triton import nvrtc
from redline.kernels import attention, crew
from redline.kernels.attention import whole
from redline.kernels.crew_epilogue import HELPERS, reading, value_text
from redline.kernels.expr import Acc, Load, call, cast, index, integer, lit
from redline.kernels.gpu import GpuCode, GpuTarget
from redline.kernels.gpu_families import GPU_FAMILIES
from redline.kernels.matmul import problem as matmul
from redline.kernels.matmul import triton as products
from redline.kernels.problem import Operand

dense = Operand.contiguous
SUM = call("add", Acc(float32), Load(float32, 2, (index(1),)))


def product(rows: int = 6304, n: int = 768, k: int = 768, value=SUM, extra=None, out=None) -> matmul.Problem:
    extra = extra or (dense(float32, (n,)),)
    out = out or dense(float16, (rows, n))
    return matmul.Problem(dense(float16, (rows, k)), dense(float16, (k, n), True), out, cast(value, float16), extra)


def residual(n: int = 768) -> matmul.Problem:
    value = call("add", call("gelu", SUM), cast(Load(float16, 3, (index(0), index(1))), float32))
    return product(n=n, value=value, extra=(dense(float32, (n,)), dense(float16, (6304, n))))


def cubin(code: GpuCode) -> bytes:
    try:
        return nvrtc.cubin(code.text, 90)
    except CompilerError as error:
        pytest.skip(str(error))


def test_crews_come_first_and_fit() -> None:
    found = [s for s in GPU_FAMILIES["matmul"].schedules(product(), GpuTarget()) if isinstance(s, crew.Crew)]
    assert found and all(s.shared_bytes <= GpuTarget().shared_bytes for s in found)
    assert isinstance(GPU_FAMILIES["matmul"].schedules(product(), GpuTarget())[0], crew.Crew)


@pytest.mark.parametrize("target", [GpuTarget(80), GpuTarget(89), GpuTarget(plain=True)])
def test_other_targets_have_none(target: GpuTarget) -> None:
    assert not any(isinstance(s, crew.Crew) for s in GPU_FAMILIES["matmul"].schedules(product(), target))


def test_few_rows_and_odd_columns_have_none() -> None:
    for problem in (product(rows=32), product(n=1000)):
        assert not any(isinstance(s, crew.Crew) for s in GPU_FAMILIES["matmul"].schedules(problem, GpuTarget()))


def test_what_an_epilogue_may_read() -> None:
    whole_result = residual()
    how = reading(whole_result.epilogue, whole_result.reads, whole_result.out)
    assert how is not None and how.columns == {2: 1} and how.elements == 3
    by_row = product(value=call("add", Acc(float32), Load(float32, 2, (index(0),))), extra=(dense(float32, (6304,)),))
    assert reading(by_row.epilogue, by_row.reads, by_row.out) is None
    unknown = product(value=call("sin", SUM))
    assert reading(unknown.epilogue, unknown.reads, unknown.out) is None


def test_a_result_with_gaps_has_none() -> None:
    assert products.crew_product(product(out=Operand(float16, (6304, 768), (800, 1)))) is None


def test_an_epilogue_as_c() -> None:
    p = product(value=call("clamp", SUM, lit(0.0, float32), lit(6.0, float32)))
    how = reading(p.epilogue, p.reads, p.out)
    assert how is not None
    assert "smaller(larger(t1, (0.0f)), (6.0f))" in value_text(p.epilogue, p.reads, p.out, how)


@pytest.mark.parametrize(
    "s", [crew.Crew(3, 1, 192, 4), crew.Crew(3, 1, 192, 4, (1, 2)), crew.Crew(2, 2, 128, 4, (2, 1))], ids=str
)
def test_crews_compile(s: crew.Crew) -> None:
    code = products.render(residual(), s, GpuTarget())
    assert code.grid[0] % (s.cluster[0] * s.cluster[1]) == 0 and code.grid[0] <= 132
    assert cubin(code).startswith(b"\x7fELF")


def test_the_maps_of_a_signature() -> None:
    code = products.render(residual(), crew.Crew(3, 1, 192, 4, (1, 2)), GpuTarget())
    assert nvrtc.facts(code.signature, 7) == {
        "shared": 7, "maps": [{"block_size": [96, 64], "swizzle": 3}, {"block_size": [192, 64], "swizzle": 3}],
    }  # fmt: skip


def heads(queries: int, keys: int, bias: bool = False) -> attention.Problem:
    q, k = dense(float16, (32, 12, queries, 64)), dense(float16, (32, 12, keys, 64))
    mask = cast(Load(float16, 3, (index(0), integer(0), integer(0), index(3))), float32)
    score = attention.problem.scaled(0.125)
    more = (dense(float16, (32, 1, 1, keys)),) if bias else ()
    return attention.Problem((q, k, k, *more), q, call("add", score, mask) if bias else score)


@pytest.mark.parametrize("problem", [heads(197, 197), heads(128, 128, True), heads(64, 256)], ids=["vit", "bert", "long"])
def test_whole_rows_of_scores_compile(problem: attention.Problem) -> None:
    found = whole.candidates(problem, GpuTarget())
    assert found and all(whole.shared_bytes(problem, s) <= GpuTarget().shared_bytes for s in found)
    assert cubin(whole.render(problem, found[0], GpuTarget())).startswith(b"\x7fELF")


def test_which_attention_has_whole_rows() -> None:
    causal = attention.Problem(heads(64, 64).reads, heads(64, 64).out, heads(64, 64).score, 0)
    by_query = call("add", heads(64, 64).score, cast(Load(float16, 3, tuple(map(index, range(4)))), float32))
    biased = attention.Problem((*heads(64, 64).reads, dense(float16, (32, 12, 64, 64))), heads(64, 64).out, by_query)
    for problem in (heads(197, 300), heads(1, 197), causal, biased):
        assert not whole.candidates(problem, GpuTarget())


def test_nvrtc_complains_with_the_line() -> None:
    with pytest.raises((ValueError, CompilerError), match=r"nothing|not installed"):
        nvrtc.cubin('extern "C" __global__ void KERNEL() { nothing(); }', 90)


def test_gelu_holds_everywhere() -> None:
    """The coefficients in the text, evaluated as the text says, against erf; up to where float16 ends and beyond."""
    body = HELPERS[HELPERS.index("float gelu(") :]
    numbers = [np.float32(n.replace(" ", "")) for n in re.findall(r"(?:p = |[+-] )(\d[\d.e-]*)f", body)[:-1]]
    signs = [1, *(1 if sign == "+" else -1 for sign in re.findall(r"p = p \* u ([+-])", body))]
    assert len(numbers) == len(signs) == 9
    x = np.concatenate([np.linspace(-12, 12, 20001), [-65504, 65504, -1e4, 300, -1e30, 1e30]]).astype(np.float32)
    with np.errstate(over="ignore"):
        u, p = x * x, np.full_like(x, numbers[0])
        for number, sign in zip(numbers[1:], signs[1:], strict=True):
            p = p * u + np.float32(sign) * number
        factor = np.clip(x * p + np.float32(0.5), 0, 1)
    wanted = [(1 + math.erf(float(v) / math.sqrt(2))) / 2 for v in x]
    assert np.abs(factor - wanted).max() <= 1.3e-5
