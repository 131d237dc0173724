"""Expressions as Triton: a tile of values at once, from tiles of coordinates that broadcast against each other.

The Renderer is the counterpart of cexpr's: statements of one scope, each subexpression named once. Coordinates are int32
tiles; values are held in the type that computations use (float32 for the 16-bit floats). Where a coordinate may leave its
axis, ``guards`` holds the condition under which it is inside, and loads are masked with the conditions of what they read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.errors import RedlineError
from redline.base.extents import high, is_open
from redline.kernels import bounds
from redline.kernels.expr import Call, Expr, Lit, Load
from redline.kernels.functions import compute_type
from redline.kernels.prepare import prepare
from redline.kernels.problem import Operand
from redline.kernels.scope import Scope

TYPES = {
    "float32": "tl.float32", "float16": "tl.float16", "bfloat16": "tl.bfloat16", "float64": "tl.float64",
    "int64": "tl.int64", "int32": "tl.int32", "int16": "tl.int16", "int8": "tl.int8", "uint64": "tl.uint64",
    "uint32": "tl.uint32", "uint16": "tl.uint16", "uint8": "tl.uint8", "bool": "tl.int1",
    "float8_e4m3fn": "tl.float8e4nv",
}  # fmt: skip
NAN = "propagate_nan=tl.PropagateNan.ALL"
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&",
    "or": "|", "xor": "^", "bitand": "&", "bitor": "|", "bitxor": "^",
}  # fmt: skip
_UNARY = {
    "neg": "-{0}", "floor": "tl.floor({0})", "ceil": "tl.ceil({0})", "sqrt": "tl.sqrt_rn({0})", "rsqrt": "tl.rsqrt({0})",
    "exp": "tl.exp({0})", "log": "tl.log({0})", "sin": "tl.sin({0})", "cos": "tl.cos({0})", "abs": "tl.abs({0})",
    "sigmoid": "tl.sigmoid({0})", "isnan": "({0} != {0})", "bitnot": "~{0}",
}  # fmt: skip
_LIBRARY = frozenset(
    {"expm1", "log1p", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "rint", "trunc", "pow", "fmod"}
)


def from_storage(dtype: DType, text: str) -> str:
    """An element in memory as a value."""
    if dtype == dtypes.bool_:
        return f"({text} != 0)"
    held = compute_type(dtype)
    return text if held == dtype else f"{text}.to({TYPES[held.name]})"


def to_storage(dtype: DType, text: str) -> str:
    """A value as an element in memory."""
    return _converted(text, "tl.int8" if dtype == dtypes.bool_ else TYPES[dtype.name])


def zero(dtype: DType) -> str:
    """What a masked load gives: Triton makes no float of 8 bits from an integer."""
    return "0.0" if dtype in dtypes.GPU_ONLY else "0"


def load(address: str, mask: str, other: str, dtype: DType) -> str:
    """An element, or where ``mask`` (if there is one) does not hold the literal ``other``.

    Triton 3.6 spreads an integer over a word of several wrongly where the integer's leading bit is set, so that is chosen after
    the load.
    """
    if not mask:
        return f"tl.load({address})"
    if dtype.is_integer and dtype.size < 4 and not 0 <= int(other.strip("()")) < 1 << (8 * dtype.size - 1):
        inside = f"tl.load({address}, mask={mask}, other=0)"
        return f"tl.where({mask}, {inside}, tl.full([], {other}, {TYPES[dtype.name]}))"
    return f"tl.load({address}, mask={mask}, other={other})"


def tile(text: str, dtype: DType, shape: Sequence[int]) -> str:
    """A value, which may be a literal, as a tile of what ``dtype`` is computed in."""
    extents = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    return f"tl.broadcast_to({_converted(text, TYPES[compute_type(dtype).name])}, ({extents}))"


def _converted(text: str, kind: str) -> str:
    if re.fullmatch(r'\(?-?[\d.e+-]+\)?|float\("[-a-z]+"\)', text):
        return f"tl.full([], {text}, {kind})"
    return f"({text}).to({kind})"


def literal(value: float | int | bool, dtype: DType) -> str:
    if dtype == dtypes.bool_:
        return "(tl.full([], 1, tl.int1))" if value else "(tl.full([], 0, tl.int1))"
    if is_open(value):
        return str(value) if dtype.is_integer else f"{value}.to({TYPES[dtype.name]})"
    if not dtype.is_float:
        return f"({int(value)})" if value < 0 else str(int(value))
    number = float(dtype.numpy.type(value))
    if number != number or number in (float("inf"), -float("inf")):
        return f'float("{number}")'
    return f"({number!r})" if number < 0 else repr(number)


@dataclass(frozen=True)
class Rows:
    """The coordinates along ``axes`` are those of row ``text``, counted in row-major order below ``shape``.

    Where an operand's rows follow each other evenly, its address is one multiple of the row, without a division.
    """

    text: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, form: bounds.Affine) -> bounds.Affine | None:
        """``form`` with the last of the axes standing for the row, in place of them all; None where they are uneven."""
        factors = dict(form.coefficients)
        wide = [(axis, extent) for axis, extent in zip(self.axes, self.shape, strict=True) if extent != 1]
        last = factors.get(wide[-1][0]) if len(wide) > 1 else None
        if last is None:
            return None
        run = 1
        for axis, extent in reversed(wide):
            if factors.pop(axis, None) != last * run:
                return None
            run *= extent
        return bounds.Affine(form.offset, (*factors.items(), (wide[-1][0], last)))

    def text_of(self, form: bounds.Affine, coordinates: Sequence[str], wide: bool) -> str:
        """``affine_text``, by rows where that is possible."""
        whole = self.of(form)
        if whole is None:
            return affine_text(form, coordinates, wide)
        row = whole.coefficients[-1][0]
        return affine_text(whole, [self.text if axis == row else text for axis, text in enumerate(coordinates)], wide)


NO_ROWS = Rows("", (), ())


class Renderer(Scope):
    """Renders expressions of one scope.

    ``coordinates[axis]`` is the text of Index(axis), ``guards[axis]`` the condition under which it is inside, where that is
    not certain. ``extents`` are those of the coordinates; ``pointers`` the names of the parameters of ``reads``. ``wide``:
    addresses need 64 bits. ``exact``: float functions as precise as the library's. ``rows``: coordinates that are a row's.
    """

    def __init__(
        self, reads: Sequence[Operand], coordinates: Sequence[str], extents: Sequence[int], accumulators: Sequence[str] = (),
        guards: Mapping[int, str] | None = None, pointers: Sequence[str] | None = None, prefix: str = "t", exact: bool = True,
        rows: Rows = NO_ROWS,
    ) -> None:  # fmt: skip
        super().__init__(coordinates, accumulators, literal)
        self.reads, self.rows = reads, rows
        self.pointers = pointers or [f"arg{i}" for i in range(len(reads))]
        self.box, self.guards, self.prefix, self.exact = bounds.box_of(extents), dict(guards or {}), prefix, exact
        self._statements: list[str] = []
        self._conditions: list[str] = []
        self._count = 0

    def render(self, expr: Expr) -> tuple[list[str], str]:
        """The new statements that ``expr`` needs, and the text of its value."""
        self._statements = []
        result = self._visit(prepare(expr, self.reads, self.box))
        return self._statements, result

    def render_stored(self, expr: Expr, dtype: DType) -> tuple[list[str], str]:
        """The same for a value that goes to memory as ``dtype``: the store rounds it, so nothing has to before."""
        rounds = isinstance(expr, Call) and expr.fn == "cast" and expr.dtype == dtype and dtype in dtypes.NARROW_FLOATS
        if rounds and isinstance(expr, Call) and expr.args[0].dtype == compute_type(dtype):
            return self.render(expr.args[0])
        return self.render(expr)

    def _name(self, text: str) -> str:
        name = f"{self.prefix}{self._count}"
        self._count += 1
        self._statements.append(f"{name} = {text}")
        return name

    def _load(self, expr: Load) -> str:
        operand, index = self.reads[expr.operand], expr.index[0]
        form = bounds.affine(index)
        offset = self._visit(index) if form is None else self.rows.text_of(form, self.coordinates, is_wide(operand))
        guards = [self.guards[axis] for axis in sorted(bounds.indices(index)) if axis in self.guards]
        conditions = [*guards, *self._conditions]
        mask = f", mask={' & '.join(conditions)}, other={zero(operand.dtype)}" if conditions else ""
        return self._name(from_storage(operand.dtype, f"tl.load({self.pointers[expr.operand]} + {offset}{mask})"))

    def _call(self, expr: Expr) -> str:
        assert isinstance(expr, Call)
        if expr.fn == "cast" and isinstance(expr.args[0], Lit):
            return literal(expr.args[0].value, expr.dtype)
        if expr.fn == "cast":
            return self._name(cast_text(self._visit(expr.args[0]), expr.args[0].dtype, expr.dtype))
        if expr.fn == "branch":
            return self._branch(expr)
        texts = [self._visit(arg) for arg in expr.args]
        text = self._function(expr, texts)
        if expr.dtype in dtypes.NARROW_FLOATS:
            text = f"({text}).to({TYPES[expr.dtype.name]}).to(tl.float32)"
        return self._name(text)

    def _branch(self, expr: Call) -> str:
        """Both sides, the loads of each masked by its own condition."""
        condition = self._name(self._visit(expr.args[0]))
        values = []
        for test, arg in ((condition, expr.args[1]), (f"(~{condition})", expr.args[2])):
            known = dict(self._names)
            self._conditions.append(test)
            values.append(self._visit(arg))
            self._conditions.pop()
            self._names = known
        return self._name(f"tl.where({condition}, {values[0]}, {values[1]})")

    def _function(self, expr: Call, x: Sequence[str]) -> str:
        fn, kind = expr.fn, expr.args[-1].dtype
        if fn in _INFIX:
            return f"{x[0]} {_INFIX[fn]} {x[1]}"
        if fn in ("max", "min"):
            return f"tl.{fn}imum({x[0]}, {x[1]}{', ' + NAN if kind.is_float else ''})"
        if fn == "clamp":
            nan = f", {NAN}" if kind.is_float else ""
            return f"tl.minimum(tl.maximum({x[0]}, {x[1]}{nan}), {x[2]}{nan})"
        if fn == "where":
            return f"tl.where({x[0]}, {x[1]}, {x[2]})"
        if fn in ("div", "floordiv", "mod"):
            return self._division(expr, x)
        if fn == "erf":
            return f"tl.erf({x[0]})" if self.exact else f"rl_erf({x[0]})"
        if fn == "gelu":
            return f"0.5 * {x[0]} * (1 + tl.erf({x[0]} * 0.7071067811865476))" if self.exact else f"rl_gelu({x[0]})"
        if fn == "tanh":
            return f"rl_tanh({x[0]})"
        if fn == "pow":
            return self._power(expr, x)
        if fn == "isinf":
            return f'(tl.abs({x[0]}) == float("inf"))' if kind.is_float else f"({x[0]} != {x[0]})"
        if fn == "sign":
            return f"tl.where({x[0]} > 0, 1, tl.where({x[0]} < 0, -1, {x[0]}))"
        if fn == "not":
            return f"({x[0]} == 0)"
        if fn in ("shl", "shr"):
            return f"{x[0]} {'<<' if fn == 'shl' else '>>'} {x[1]}"
        if fn in ("floor", "ceil", "rint", "trunc") and not kind.is_float:
            return x[0]
        if fn in ("rint", "rint32") and kind == dtypes.float32:
            return f"rl_{fn}({x[0]})"
        if fn in _UNARY:
            return _UNARY[fn].format(*x)
        if fn in _LIBRARY and kind.is_float:
            return f"libdevice.{fn}({', '.join(x)})"
        raise RedlineError("triton", f"function {fn!r} of {kind} has no GPU form yet", "", "build this model for the CPU")

    def _division(self, expr: Call, x: Sequence[str]) -> str:
        if expr.dtype.is_float:
            if expr.fn == "div":
                return f"{x[0]} / {x[1]}"
            floored = f"tl.floor({x[0]} / {x[1]})"
            return floored if expr.fn == "floordiv" else f"{x[0]} - {x[1]} * {floored}"
        known = bounds.interval(expr.args[0], self.box)
        divisor = expr.args[1]
        if known and known[0] >= 0 and isinstance(divisor, Lit) and divisor.value > 0:
            return f"{x[0]} {'%' if expr.fn == 'mod' else '//'} {x[1]}"
        if expr.fn == "div":
            return f"rl_div({x[0]}, {x[1]})"
        quotient = f"rl_floordiv({x[0]}, {x[1]})"
        return quotient if expr.fn == "floordiv" else f"{x[0]} - {x[1]} * {quotient}"

    def _power(self, expr: Call, x: Sequence[str]) -> str:
        exponent = expr.args[1].value if isinstance(expr.args[1], Lit) else None
        if exponent in (1, 2, 3):
            return " * ".join([x[0]] * int(exponent))
        if exponent == 0.5:
            return f"tl.sqrt_rn({x[0]})"
        if not expr.dtype.is_float:
            raise RedlineError("triton", "an integer power has no GPU form yet", "", "build this model for the CPU")
        return f"libdevice.pow({x[0]}, {x[1]})"


def is_wide(operand: Operand) -> bool:
    """Whether element offsets of an operand may need 64 bits."""
    return sum(abs(high(s)) * max(0, high(e) - 1) for e, s in zip(operand.shape, operand.strides, strict=True)) >= 1 << 31


def affine_text(form: bounds.Affine, coordinates: Sequence[str], wide: bool = False) -> str:
    """An affine form over the texts of the coordinates."""
    terms = []
    for axis, factor in form.coefficients:
        text = coordinates[axis]
        if text == "0":
            continue
        text = f"{text}.to(tl.int64)" if wide else text
        terms.append(text if factor == 1 else f"{text} * {factor}")
    moved = is_open(form.offset) or form.offset != 0
    total = " + ".join([*terms, str(form.offset)] if moved or not terms else terms)
    return f"({total})" if len(terms) > 1 or moved else total


def cast_text(text: str, source: DType, target: DType) -> str:
    """A value of ``source`` as one of ``target``: floats truncate, integers wrap, bool is ``!= 0``."""
    if target == dtypes.bool_:
        return f"({text} != 0)"
    held = compute_type(target)
    if held != target:
        return f"({text}).to({TYPES[target.name]}).to({TYPES[held.name]})"
    if compute_type(source) == held:
        return f"{text}"
    if source.is_float and target.is_integer and target.size < 4:
        return f"({text}).to(tl.int32).to({TYPES[target.name]})"
    return f"({text}).to({TYPES[held.name]})"


def offset(operand: Operand, coordinates: Sequence[str], rows: Rows = NO_ROWS) -> str:
    """The element offset of ``operand`` at coordinate texts."""
    axes = zip(range(len(coordinates)), operand.strides, operand.shape, strict=True)
    form = bounds.Affine(0, tuple((axis, s) for axis, s, e in axes if (is_open(s) or s != 0) and (is_open(e) or e > 1)))
    return rows.text_of(form, coordinates, is_wide(operand))


def store(
    pointer: str, operand: Operand, coordinates: Sequence[str], value: str, guards: Sequence[str], rows: Rows = NO_ROWS
) -> str:  # fmt: skip
    """The statement that writes ``value`` at ``coordinates``."""
    mask = f", mask={' & '.join(guards)}" if guards else ""
    return f"tl.store({pointer} + {offset(operand, coordinates, rows)}, {to_storage(operand.dtype, value)}{mask})"
