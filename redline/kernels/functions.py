"""The one table of primitive functions that expressions may call: what each means in numpy and what it is in C.

Arithmetic is that of numpy: integers wrap around, integer division by zero gives zero, ``max`` and ``min`` pass NaN on,
``mod`` has the sign of the divisor. Comparisons and logic give bool. Arguments have one type unless said otherwise.
float16 and bfloat16 compute in float32 and round once per function, in numpy and in C alike.

The C of a function is a text over the texts of its arguments. A name ``rl_...`` in it is a helper of prelude.h, where the
accuracy of each float function is stated.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import RedlineError, closest
from redline.kernels.expr import Expr, Lit

Texts = Sequence[str]
Render = Callable[[DType, Texts, Sequence[Expr]], str]


@dataclass(frozen=True)
class Function:
    """``numpy(*arrays)`` and ``c(dtype, texts, args)``; ``dtype`` is that of the last argument, never a 16-bit float."""

    name: str
    arity: int
    numpy: Callable[..., Any]
    c: Render


def lookup(name: str) -> Function:
    """The function called ``name``; raises RedlineError with the closest name for an unknown one."""
    if name not in TABLE:
        raise RedlineError("expression", f"there is no function {name!r}", closest(name, TABLE))
    return TABLE[name]


def compute_type(dtype: DType) -> DType:
    """The type in which values of ``dtype`` are held between functions: float32 for the floats of 16 and 8 bits."""
    return dtypes.float32 if dtype in dtypes.NARROW_FLOATS else dtype


def extreme(dtype: DType, lowest: bool) -> float | int | bool:
    """The lowest or highest value of a type: the result of a maximum or minimum over nothing."""
    if dtype == dtypes.float8_e4m3fn:  # which has no infinity
        return -448.0 if lowest else 448.0
    if dtype.is_float:
        return -np.inf if lowest else np.inf
    if dtype == dtypes.bool_:
        return not lowest
    info = np.iinfo(dtype.numpy)
    return int(info.min if lowest else info.max)


# --- numpy ------------------------------------------------------------------------------------------------------------


def _truncated_division(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return a / b
    quotient = np.floor_divide(a, b)
    return np.where((quotient < 0) & (quotient * b != a), quotient + 1, quotient)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + _erf(x * math.sqrt(0.5)).astype(x.dtype))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return np.power(a, b)
    return np.where(b < 0, np.where(a == 1, 1, np.where(a == -1, 1 - 2 * (b & 1), 0)), np.power(a, np.maximum(b, 0)))


def _clamp(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)


_erf = np.vectorize(math.erf, otypes=[np.float64])


# --- C ----------------------------------------------------------------------------------------------------------------


def _suffix(dtype: DType) -> str:
    return "" if dtype == dtypes.float64 else "f"


def _unsigned(dtype: DType) -> str:
    """The type in which arithmetic on ``dtype`` wraps without undefined behaviour."""
    return "uint64_t" if dtype.size == 8 else "uint32_t"


def _arithmetic(symbol: str) -> Render:
    def render(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
        if dtype.is_float:
            return f"{x[0]} {symbol} {x[1]}"
        return f"({dtype.c})(({_unsigned(dtype)}){x[0]} {symbol} ({_unsigned(dtype)}){x[1]})"

    return render


def _infix(symbol: str) -> Render:
    return lambda dtype, x, args: f"{x[0]} {symbol} {x[1]}"


def _bits(symbol: str) -> Render:
    return lambda dtype, x, args: f"({dtype.c})({x[0]} {symbol} {x[1]})"


def _shift(symbol: str) -> Render:
    def render(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
        wide = _unsigned(dtype) if symbol == "<<" or dtype.kind == "u" else "int64_t"
        beyond = f"{x[0]} < 0 ? -1 : 0" if dtype.kind == "i" and symbol == ">>" else "0"
        return f"(uint64_t){x[1]} < {8 * dtype.size} ? ({dtype.c})(({wide}){x[0]} {symbol} {x[1]}) : ({dtype.c})({beyond})"

    return render


def _libm(name: str) -> Render:
    """The function of the C library, of the argument's type."""
    return lambda dtype, x, args: f"{name}{_suffix(dtype)}({', '.join(x)})"


def _builtin(name: str) -> Render:
    """A library function that the compiler turns into an instruction; the identity on integers."""

    def render(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
        return f"__builtin_{name}{_suffix(dtype)}({x[0]})" if dtype.is_float else x[0]

    return render


def _vector(name: str) -> Render:
    """The branch-free helper of prelude.h for float32, the C library for float64."""
    return lambda dtype, x, args: f"{name}({x[0]})" if dtype == dtypes.float64 else f"rl_{name}({x[0]})"


def _vector_only(name: str) -> Render:
    """A helper of prelude.h, for float32."""
    return lambda dtype, x, args: f"rl_{name}({x[0]})"


def _is_number(expr: Expr) -> bool:
    return isinstance(expr, Lit) and expr.value == expr.value


def _extreme(symbol: str) -> Render:
    """``b > a ? b : a`` gives a when either is NaN and compiles to one vmaxps: right as it is when b is no NaN."""

    def render(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
        a, b = (x[1], x[0]) if _is_number(args[0]) else (x[0], x[1])
        if not dtype.is_float or _is_number(args[0]) or _is_number(args[1]):
            return f"{b} {symbol} {a} ? {b} : {a}"
        return f"({b} {symbol} {a}) | ({b} != {b}) ? {b} : {a}"

    return render


def _clamp_c(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
    raised = _extreme(">")(dtype, x[:2], args[:2])
    lowered = _extreme("<")(dtype, (f"({raised})", x[2]), (args[0], args[2]))
    return lowered


def _division(kind: str) -> Render:
    """Integer ``div`` (towards zero), ``floordiv``, ``mod`` and ``fmod``, with a plain operator where the divisor allows."""
    plain = {"div": "/", "fmod": "%"}

    def render(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
        positive = isinstance(args[1], Lit) and args[1].value > 0
        if positive and (kind in plain or dtype.kind == "u"):
            return f"({dtype.c})({x[0]} {plain.get(kind) or {'floordiv': '/', 'mod': '%'}[kind]} {x[1]})"
        if dtype == dtypes.uint64:
            return f"{x[1]} ? {x[0]} {'/' if kind in ('div', 'floordiv') else '%'} {x[1]} : 0"
        return f"({dtype.c})rl_{kind}_i64({x[0]}, {x[1]})"

    return render


def _by_kind(floating: Render, integer: Render) -> Render:
    return lambda dtype, x, args: (floating if dtype.is_float else integer)(dtype, x, args)


def _power_c(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
    exponent = args[1].value if isinstance(args[1], Lit) else None
    if exponent in (1, 2, 3):
        product = _arithmetic("*")
        text = x[0]
        for _ in range(int(exponent) - 1):
            text = f"({product(dtype, (text, x[0]), args)})"
        return text
    if not dtype.is_float:
        return f"({dtype.c})rl_{'ipow' if dtype.kind == 'i' else 'upow'}({x[0]}, {x[1]})"
    if exponent == 0.5:  # as numpy does for a single exponent
        return f"__builtin_sqrt{_suffix(dtype)}({x[0]})"
    return _libm("pow")(dtype, x, args)


def _negate(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
    return f"-{x[0]}" if dtype.is_float else f"({dtype.c})(0 - ({_unsigned(dtype)}){x[0]})"


def _absolute(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
    if dtype.is_float:
        return f"__builtin_fabs{_suffix(dtype)}({x[0]})"
    return x[0] if dtype.kind == "u" else f"{x[0]} < 0 ? {_negate(dtype, x, args)} : {x[0]}"


def _sign(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
    unit = f"({dtype.c})(({x[0]} > 0) - ({x[0]} < 0))"
    return f"{x[0]} != {x[0]} ? {x[0]} : {unit}" if dtype.is_float else unit


def _reciprocal_root(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
    return f"1 / __builtin_sqrt{_suffix(dtype)}({x[0]})"


def _is_infinite(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
    return f"__builtin_fabs{_suffix(dtype)}({x[0]}) == __builtin_inf{_suffix(dtype)}()" if dtype.is_float else "0"


def _unreachable(dtype: DType, x: Texts, args: Sequence[Expr]) -> str:
    raise AssertionError("rendered by cexpr: cast needs both types, branch makes no text of its arguments")


_FUNCTIONS = (
    Function("add", 2, np.add, _arithmetic("+")),
    Function("sub", 2, np.subtract, _arithmetic("-")),
    Function("mul", 2, np.multiply, _arithmetic("*")),
    Function("div", 2, _truncated_division, _by_kind(_infix("/"), _division("div"))),
    Function("floordiv", 2, np.floor_divide, _by_kind(_libm("rl_floordiv"), _division("floordiv"))),
    Function("mod", 2, np.mod, _by_kind(_libm("rl_mod"), _division("mod"))),
    Function("fmod", 2, np.fmod, _by_kind(_libm("fmod"), _division("fmod"))),
    Function("max", 2, np.maximum, _extreme(">")),
    Function("min", 2, np.minimum, _extreme("<")),
    Function("clamp", 3, _clamp, _clamp_c),
    Function("pow", 2, _power, _power_c),
    Function("neg", 1, np.negative, _negate),
    Function("abs", 1, np.abs, _absolute),
    Function("sign", 1, np.sign, _sign),
    Function("floor", 1, np.floor, _builtin("floor")),
    Function("ceil", 1, np.ceil, _builtin("ceil")),
    Function("rint", 1, np.rint, _builtin("rint")),
    Function("trunc", 1, np.trunc, _builtin("trunc")),
    Function("sqrt", 1, np.sqrt, _builtin("sqrt")),
    Function("rsqrt", 1, lambda x: 1 / np.sqrt(x), _reciprocal_root),
    Function("exp", 1, np.exp, _vector("exp")),
    Function("expm1", 1, np.expm1, _libm("expm1")),
    Function("log", 1, np.log, _vector("log")),
    Function("log1p", 1, np.log1p, _libm("log1p")),
    Function("sin", 1, np.sin, _libm("sin")),
    Function("cos", 1, np.cos, _libm("cos")),
    Function("tan", 1, np.tan, _libm("tan")),
    Function("asin", 1, np.arcsin, _libm("asin")),
    Function("acos", 1, np.arccos, _libm("acos")),
    Function("atan", 1, np.arctan, _libm("atan")),
    Function("sinh", 1, np.sinh, _libm("sinh")),
    Function("cosh", 1, np.cosh, _libm("cosh")),
    Function("tanh", 1, np.tanh, _vector("tanh")),
    Function("asinh", 1, np.arcsinh, _libm("asinh")),
    Function("acosh", 1, np.arccosh, _libm("acosh")),
    Function("atanh", 1, np.arctanh, _libm("atanh")),
    Function("erf", 1, _erf, _vector("erf")),
    Function("sigmoid", 1, _sigmoid, lambda dtype, x, args: f"rl_sigmoid{'_f64' * (dtype == dtypes.float64)}({x[0]})"),
    Function("gelu", 1, _gelu, lambda dtype, x, args: f"rl_gelu{'_f64' * (dtype == dtypes.float64)}({x[0]})"),
    Function("rint32", 1, lambda x: np.rint(x).astype(np.int32), _vector_only("rint32")),
    Function("eq", 2, np.equal, _infix("==")),
    Function("ne", 2, np.not_equal, _infix("!=")),
    Function("lt", 2, np.less, _infix("<")),
    Function("le", 2, np.less_equal, _infix("<=")),
    Function("gt", 2, np.greater, _infix(">")),
    Function("ge", 2, np.greater_equal, _infix(">=")),
    Function("and", 2, np.logical_and, _infix("&")),
    Function("or", 2, np.logical_or, _infix("|")),
    Function("xor", 2, np.logical_xor, _infix("^")),
    Function("not", 1, np.logical_not, lambda dtype, x, args: f"!{x[0]}"),
    Function("bitand", 2, np.bitwise_and, _bits("&")),
    Function("bitor", 2, np.bitwise_or, _bits("|")),
    Function("bitxor", 2, np.bitwise_xor, _bits("^")),
    Function("bitnot", 1, np.bitwise_not, lambda dtype, x, args: f"({dtype.c})~{x[0]}"),
    Function("shl", 2, np.left_shift, _shift("<<")),
    Function("shr", 2, np.right_shift, _shift(">>")),
    Function("isnan", 1, lambda x: x != x, lambda dtype, x, args: f"{x[0]} != {x[0]}"),
    Function("isinf", 1, np.isinf, _is_infinite),
    Function("where", 3, np.where, lambda dtype, x, args: f"{x[0]} ? {x[1]} : {x[2]}"),
    Function("branch", 3, np.where, _unreachable),
    Function("cast", 1, lambda x: x, _unreachable),
)
TABLE = {function.name: function for function in _FUNCTIONS}

ACCURACY: dict[str, tuple[float, float]] = {
    "exp": (2, 1e-44),
    "log": (2, 0),
    "sigmoid": (5, 1.7e-38),
    "tanh": (5, 0),
    "erf": (8, 0),
    "gelu": (8, 5e-7),
}
"""float32 functions that generated code computes itself: (units in the last place, absolute error allowed besides).

The absolute error is for results too small to be normal numbers, and for ``gelu`` in its tail below -1. All other functions
are the processor's or the C library's. The reference for each is numpy in float64.
"""
