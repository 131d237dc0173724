"""The text of expressions: names, literals, safe addresses, and a prelude of no more than is used."""

import numpy as np
import pytest

from redline.base.dtypes import bfloat16, bool_, float16, float32, float64, int8, int32, int64, uint32
from redline.kernels import cexpr
from redline.kernels.cexpr import Renderer, cast_text, literal, prelude, store
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Acc, Call, Load, call, cast, index, integer, lit
from redline.kernels.prepare import prepare
from redline.kernels.problem import Operand

X = Operand(float32, (4, 6), (10, 1))
I = Operand.contiguous(int64, (4,))  # noqa: E741


def test_common_subexpressions_are_named_once() -> None:
    x = Load(float32, 0, (index(0), index(1)))
    statements, result = Renderer([X], ["i", "j"], extents=(4, 6)).render(call("mul", call("exp", x), call("exp", x)))
    assert statements == [
        "const float t0 = arg0[i * 10 + j];", "const float t1 = rl_exp(t0);", "const float t2 = t1 * t1;",
    ]  # fmt: skip
    assert result == "t2"


def test_a_second_render_uses_the_names_of_the_first() -> None:
    x = Load(float32, 0, (index(0), integer(2)))
    renderer = Renderer([X], ["i"], ["sum"], extents=(4,))
    assert renderer.render(x) == (["const float t0 = arg0[i * 10 + 2];"], "t0")
    assert renderer.render(call("add", x, Acc(float32))) == (["const float t1 = t0 + sum;"], "t1")


def test_bound_expressions_are_not_computed_again() -> None:
    x = prepare(Load(float32, 0, (index(0), integer(0))), [X], ((0, 3),))
    renderer = Renderer([X], ["i"], extents=(4,))
    renderer.bind(x, "tile[r]")
    assert renderer.emit(call("neg", x)) == (["const float t0 = -tile[r];"], "t0")


def test_coordinates_from_data_are_clamped() -> None:
    gathered = Load(float32, 0, (Load(int64, 1, (index(0),)), integer(5)))
    statements, _ = Renderer([X, I], ["i"], extents=(4,)).render(gathered)
    assert any("< 0" in line or "0 >" in line for line in statements)
    table = np.arange(24, dtype=np.float32).reshape(4, 6)
    got = evaluate(gathered, [table, np.array([0, -5, 3, 99])], (4,))
    np.testing.assert_array_equal(got, [5, 5, 23, 23])


def test_loads_that_may_lie_outside_are_branches() -> None:
    inside = call("ge", index(0), integer(1), dtype=bool_)
    shifted = Call(
        float32, "where", (inside, Load(float32, 0, (call("sub", index(0), integer(1)), integer(0))), lit(0.0, float32))
    )
    statements, result = Renderer([X], ["i"], extents=(4,)).render(shifted)
    assert f"float {result};" in statements
    assert statements[-1].startswith("if (t") and "arg0[i * 10 + -10]" in statements[-1]
    safe = Call(float32, "where", (inside, Load(float32, 0, (index(0), integer(0))), lit(0.0, float32)))
    statements, _ = Renderer([X], ["i"], extents=(4,)).render(safe)
    assert not any(line.startswith("if") for line in statements)


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (1, float32, "1.0f"), (-0.5, float64, "(-0.5)"), (np.inf, float32, "(__builtin_inff())"),
        (-np.inf, float64, "(-__builtin_inf())"), (np.nan, float32, '__builtin_nanf("")'), (0.1, float16, "0.0999755859375f"),
        (True, bool_, "1"), (-3, int8, "(-3)"), (-(1 << 63), int64, "(INT64_MIN)"), (1 << 40, int64, "1099511627776ll"),
        (7, uint32, "7u"), (1e-45, float32, "1.401298464324817e-45f"),
    ],
)  # fmt: skip
def test_literals(value: float, dtype: object, text: str) -> None:
    assert literal(value, dtype) == text


def test_16_bit_floats_are_held_as_floats_and_rounded() -> None:
    half = Operand.contiguous(float16, (4,))
    x = Load(float16, 0, (index(0),))
    statements, _ = Renderer([half], ["i"], extents=(4,)).render(call("add", x, x))
    assert statements == ["const float t0 = (float)arg0[i];", "const float t1 = (float)(rl_half)(t0 + t0);"]
    assert Renderer([half], ["i"], extents=(4,)).render(cast(x, float32))[0][-1] == "const float t1 = t0;"
    brief = Operand.contiguous(bfloat16, (4,))
    assert store(brief, "out", "i", "t1", rounded=False) == "out[i] = rl_to_bf16(t1);"
    assert store(brief, "out", "i", "t1") == "out[i] = (rl_bf16)(rl_bits(t1) >> 16);"


def test_casts() -> None:
    assert cast_text("x", float32, int8) == "(int8_t)(int32_t)x"
    assert cast_text("x", float32, uint32) == "(uint32_t)(int64_t)x"
    assert cast_text("x", int32, bool_) == "x != 0"
    assert cast_text("x", int32, float64) == "(double)x"


def test_prelude_holds_what_is_used_and_nothing_else() -> None:
    assert prelude("") == "#include <stdint.h>\n"
    text = prelude("y = rl_sigmoid(x) + sinf(z) + acosh(w);")
    assert "rl_sigmoid(float x)" in text and "rl_bits" in text and "rl_log" not in text
    assert "float sinf(float);" in text and "double acosh(double);" in text and "acosf" not in text
    assert text.index("rl_bits(float") < text.index("rl_sigmoid(float")


def test_every_helper_is_described() -> None:
    for name, body in cexpr._helpers().items():
        assert name in body
