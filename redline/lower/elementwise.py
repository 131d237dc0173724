"""Elementwise operators as scalar expressions: what one output element is, given one element of each input.

Floats of 16 and 8 bits are computed with in float32 and rounded at the end; every other type in itself.
"""

import math
from collections.abc import Callable, Sequence

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.kernels.expr import Expr, Lit, call, cast, lit
from redline.ops import Op
from redline.ops.quantize import bounds

Build = Callable[..., Expr]

SAME_TYPE = {
    "Abs": "abs", "Neg": "neg", "Floor": "floor", "Ceil": "ceil", "Round": "rint", "Sqrt": "sqrt", "Exp": "exp", "Log": "log",
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh",
    "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh", "Tanh": "tanh", "Erf": "erf", "Sigmoid": "sigmoid", "Sign": "sign",
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Max": "max", "Min": "min", "Sum": "add",
    "BitwiseAnd": "bitand", "BitwiseOr": "bitor", "BitwiseXor": "bitxor", "BitwiseNot": "bitnot",
    "And": "and", "Or": "or", "Xor": "xor", "Not": "not",
}  # fmt: skip
VARIADIC = frozenset({"Max", "Min", "Sum"})
TO_BOOL = {
    "Equal": "eq", "Less": "lt", "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge", "IsNaN": "isnan",
}  # fmt: skip


def build(op: Op, args: Sequence[Expr | None], out: DType) -> Expr:
    """One element of ``op``'s result, of type ``out``. ``args`` are the input elements, None for an absent input."""
    wide = [None if a is None else cast(a, dtypes.float32) if a.dtype in dtypes.NARROW_FLOATS else a for a in args]
    if op.name in SAME_TYPE:
        value = _fold(SAME_TYPE[op.name], [a for a in wide if a is not None], op.name in VARIADIC)
    elif op.name in TO_BOOL:
        value = call(TO_BOOL[op.name], *(a for a in wide if a is not None), dtype=dtypes.bool_)
    else:
        value = SPECIAL[op.name](op, *wide)
    return cast(value, out)


def _fold(fn: str, args: list[Expr], variadic: bool) -> Expr:
    """``fn`` of one argument, or of two, or chained over any number where the operator is variadic."""
    if not variadic:
        return call(fn, *args)
    value = args[0]
    for other in args[1:]:
        value = call(fn, value, other)
    return value


def supported(name: str) -> bool:
    return name in SAME_TYPE or name in TO_BOOL or name in SPECIAL


def _l(value: float, like: Expr) -> Expr:
    """A literal of the type of ``like``."""
    return lit(float(value) if like.dtype.is_float else int(value), like.dtype)


def _where(condition: Expr, yes: Expr, no: Expr) -> Expr:
    return call("where", condition, yes, no)


def _compare(fn: str, a: Expr, b: Expr) -> Expr:
    return call(fn, a, b, dtype=dtypes.bool_)


def _relu(op: Op, x: Expr) -> Expr:
    return call("max", x, _l(0, x))


def _clip(op: Op, x: Expr, low: Expr | None = None, high: Expr | None = None) -> Expr:
    x = call("max", x, low) if low is not None else x
    return call("min", x, high) if high is not None else x


def _leaky_relu(op: Op, x: Expr) -> Expr:
    return _where(_compare("lt", x, _l(0, x)), call("mul", x, _l(op.attr("alpha", 0.01), x)), x)


def _prelu(op: Op, x: Expr, slope: Expr) -> Expr:
    return _where(_compare("lt", x, _l(0, x)), call("mul", x, slope), x)


def _exp_branch(x: Expr, alpha: float, gamma: float = 1.0, scale: float = 1.0) -> Expr:
    """gamma * x above zero, gamma * alpha * (exp(x / scale) - 1) below."""
    below = call("sub", call("exp", call("mul", call("min", x, _l(0, x)), _l(1 / scale, x))), _l(1, x))
    below = call("mul", below, _l(gamma * alpha, x))
    above = call("mul", x, _l(gamma, x)) if gamma != 1 else x
    return _where(_compare("le", x, _l(0, x)), below, above)


def _hard_sigmoid(op: Op, x: Expr) -> Expr:
    alpha, beta = op.attr("alpha", 0.2), op.attr("beta", 0.5)
    line = call("add", call("mul", x, _l(alpha, x)), _l(beta, x))
    return call("min", call("max", line, _l(0, x)), _l(1, x))


def _hard_swish(op: Op, x: Expr) -> Expr:
    line = call("add", call("mul", x, _l(1 / 6, x)), _l(0.5, x))
    return call("mul", x, call("min", call("max", line, _l(0, x)), _l(1, x)))


def _softplus(op: Op, x: Expr) -> Expr:
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|)), which neither overflows nor loses small values."""
    tail = call("log1p", call("exp", call("neg", call("abs", x))))
    return call("add", call("max", x, _l(0, x)), tail)


def _mish(op: Op, x: Expr) -> Expr:
    return call("mul", x, call("tanh", _softplus(op, x)))


def _softsign(op: Op, x: Expr) -> Expr:
    return call("div", x, call("add", _l(1, x), call("abs", x)))


def _gelu(op: Op, x: Expr) -> Expr:
    if op.attr("approximate", "none") in ("tanh", b"tanh"):
        half = call("mul", _l(0.5, x), x)
        cube = call("mul", call("mul", x, x), x)
        inner = call("add", x, call("mul", _l(0.044715, x), cube))
        inside = call("tanh", call("mul", _l(math.sqrt(2 / math.pi), x), inner))
        return call("mul", half, call("add", _l(1, x), inside))
    return call("gelu", x)


def _swish(op: Op, x: Expr) -> Expr:
    alpha = op.attr("alpha", 1.0)
    return call("mul", x, call("sigmoid", x if alpha == 1 else call("mul", x, _l(alpha, x))))


def _shrink(op: Op, x: Expr) -> Expr:
    bias, lambd = op.attr("bias", 0.0), op.attr("lambd", 0.5)
    above = _where(_compare("gt", x, _l(lambd, x)), call("sub", x, _l(bias, x)), _l(0, x))
    return _where(_compare("lt", x, _l(-lambd, x)), call("add", x, _l(bias, x)), above)


def _thresholded_relu(op: Op, x: Expr) -> Expr:
    return _where(_compare("gt", x, _l(op.attr("alpha", 1.0), x)), x, _l(0, x))


def _pow(op: Op, x: Expr, y: Expr) -> Expr:
    return call("pow", x, cast(y, x.dtype))


def _mod(op: Op, x: Expr, y: Expr) -> Expr:
    return call("fmod" if op.attr("fmod", 0) else "mod", x, y)


def _is_inf(op: Op, x: Expr) -> Expr:
    hit = call("isinf", x, dtype=dtypes.bool_)
    for attr, sign in (("detect_negative", "gt"), ("detect_positive", "lt")):
        if not op.attr(attr, 1):
            hit = call("and", hit, _compare(sign, x, _l(0, x)), dtype=dtypes.bool_)
    return hit


def _bit_shift(op: Op, x: Expr, y: Expr) -> Expr:
    return call("shl" if op.attr("direction") in ("LEFT", b"LEFT") else "shr", x, y)


def _mean(op: Op, *args: Expr) -> Expr:
    return call("div", _fold("add", list(args), variadic=True), _l(len(args), args[0]))


def _selu(op: Op, x: Expr) -> Expr:
    alpha, gamma = op.attr("alpha", 1.6732632423543772), op.attr("gamma", 1.0507009873554805)
    return _exp_branch(x, alpha, gamma)


def _quantize(op: Op, x: Expr, scale: Expr, zero: Expr | None = None) -> Expr:
    """round(x / scale) + zero within the type, for constants: the cut comes first, where it keeps the rounding in range.

    ``bounded``: x is in range anyhow (passes/bound_rounding.py), and the cut comes last. Floats of 8 bits have no zero point,
    and build() casts to them, which rounds and cuts.
    """
    assert isinstance(scale, Lit), "other parameters have become arithmetic"
    x = x if scale.value == 1 else call("div", x, scale)
    dtype = op.type(2).dtype if op.has(2) else dtypes.uint8
    if dtype.is_float:
        return x
    assert isinstance(zero, Lit | None), "other parameters have become arithmetic"
    zero_point = 0 if zero is None else int(zero.value)
    low, high = bounds(dtype)
    if op.attr("bounded", 0):
        whole = call("add", call("rint32", x, dtype=dtypes.int32), lit(zero_point, dtypes.int32))
        return call("min", call("max", whole, lit(low, dtypes.int32)), lit(high, dtypes.int32))
    held = call("max", x, lit(float(low - zero_point), dtypes.float32))
    held = call("min", held, lit(float(high - zero_point), dtypes.float32))
    return call("add", call("rint32", held, dtype=dtypes.int32), lit(zero_point, dtypes.int32))


SPECIAL: dict[str, Build] = {
    "Identity": lambda op, x: x,
    "Cast": lambda op, x: x,  # build() casts to the output type
    "Where": lambda op, condition, yes, no: _where(condition, yes, no),
    "Relu": _relu,
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": lambda op, x: _exp_branch(x, op.attr("alpha", 1.0)),
    "Selu": _selu,
    "Celu": lambda op, x: _exp_branch(x, op.attr("alpha", 1.0), scale=op.attr("alpha", 1.0)),
    "ThresholdedRelu": _thresholded_relu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Mish": _mish,
    "Gelu": _gelu,
    "Swish": _swish,
    "Shrink": _shrink,
    "Reciprocal": lambda op, x: call("div", _l(1, x), x),
    "Pow": _pow,
    "Mod": _mod,
    "IsInf": _is_inf,
    "BitShift": _bit_shift,
    "Mean": _mean,
    "QuantizeLinear": _quantize,
}
