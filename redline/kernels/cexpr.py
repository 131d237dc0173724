"""Expressions as scalar C, and the declarations that generated C relies on.

``Renderer`` turns expressions into statements that name every common subexpression once and the text of their result.
Values are held in ``compute_type``: 16-bit floats as float, bool as _Bool. Loops around the statements are vectorised by
the compiler, so the text is free of branches, except for the loads that prepare.py says must not happen needlessly.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.base.extents import is_open, low
from redline.kernels import bounds, functions
from redline.kernels.expr import Call, Expr, Lit, Load
from redline.kernels.functions import compute_type
from redline.kernels.prepare import prepare
from redline.kernels.problem import Operand
from redline.kernels.scope import Scope

_HEAD = "#include <stdint.h>\n"


def prelude(text: str) -> str:
    """The declarations that the C text ``text`` uses, to stand above it: types, and helpers of prelude.h it names."""
    helpers = _helpers()
    needed: set[str] = set()
    pending = [text]
    while pending:
        names = set(re.findall(r"\b(?:rl|RL)_\w+", pending.pop())) & helpers.keys() - needed
        needed |= names
        pending += [helpers[name] for name in names]
    body = "".join(helper for name, helper in helpers.items() if name in needed)
    return _HEAD + _library_declarations(text + body) + body


def without_prelude(text: str) -> str:
    """A kernel's text as it was before its prelude was set above it."""
    return text.removeprefix(prelude(text))  # which uses what the text below it uses


@cache
def _helpers() -> dict[str, str]:
    """The blocks of prelude.h by the name that heads them, in the file's order."""
    text = (Path(__file__).parent / "prelude.h").read_text()
    blocks = {}
    for block in text.split("\n\n"):
        name = re.match(r"// (\w+):", block)
        assert name, f"prelude.h: a block without a heading: {block[:60]!r}"
        blocks[name[1]] = block.split("\n", 1)[1].rstrip() + "\n"
    return blocks


def _library_declarations(text: str) -> str:
    """Prototypes of the C library functions that ``text`` calls: parsing math.h would take longer than the kernel."""
    lines = []
    for name in sorted(set(re.findall(r"(?<![\w.])([a-z]\w*)\(", text))):
        for kind, base in (("double", name), ("float", name[:-1] if name.endswith("f") else "")):
            if base in _LIBRARY:
                lines.append(f"{kind} {name}({', '.join([kind] * _LIBRARY[base])});\n")
    return "".join(lines)


_LIBRARY = {
    **dict.fromkeys(["exp", "expm1", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"], 1),
    **dict.fromkeys(["asinh", "acosh", "atanh", "erf"], 1),
    **dict.fromkeys(["pow", "fmod"], 2),
}


def c_type(dtype: DType) -> str:
    """The C type in which a value of ``dtype`` is held."""
    return "_Bool" if dtype == dtypes.bool_ else compute_type(dtype).c


def from_storage(dtype: DType, text: str) -> str:
    """An element in memory as a value."""
    if dtype == dtypes.bfloat16:
        return f"rl_from_bf16({text})"
    if dtype == dtypes.float16:
        return f"(float){text}"
    return f"{text} != 0" if dtype == dtypes.bool_ else text


def to_storage(dtype: DType, text: str) -> str:
    """A value as an element in memory."""
    if dtype == dtypes.bfloat16:
        return f"rl_to_bf16({text})"
    return f"({dtype.c})({text})" if dtype in (dtypes.float16, dtypes.bool_) else text


def literal(value: float | int | bool, dtype: DType) -> str:
    """A constant of ``dtype``, rounded to it."""
    if is_open(value):
        return f"(int64_t){value}"
    if dtype == dtypes.bool_:
        return "1" if value else "0"
    if dtype.is_float:
        return _float_literal(float(dtype.numpy.type(value)), "" if dtype == dtypes.float64 else "f")
    number = int(dtype.numpy.type(value))
    if dtype.size < 8:
        text = f"{number}u" if dtype == dtypes.uint32 else str(number)
    elif dtype == dtypes.uint64:
        text = f"{number}ull"
    else:
        text = "INT64_MIN" if number == -(1 << 63) else f"{number}ll" if abs(number) >> 31 else str(number)
    return f"({text})" if number < 0 else text


def _float_literal(value: float, suffix: str) -> str:
    if value != value:
        return f'__builtin_nan{suffix}("")'
    if value in (float("inf"), -float("inf")):
        return f"({'-' if value < 0 else ''}__builtin_inf{suffix}())"
    text = repr(value)
    text = text if any(c in text for c in ".e") else text + ".0"
    return f"({text}{suffix})" if text.startswith("-") else text + suffix


def pointers(operands: Sequence[Operand], names: Sequence[str], first: int = 0, const: bool = True) -> list[str]:
    """Declarations of typed restrict pointers to the kernel's arguments ``args[first]`` on."""
    qualifier = "const " if const else ""
    return [
        f"{qualifier}{operand.dtype.c} *restrict {name} = args[{first + i}];"
        for i, (operand, name) in enumerate(zip(operands, names, strict=True))
    ]


class Renderer(Scope):
    """Renders expressions of one scope; what it has once named it uses again.

    ``reads`` are the operands that Load refers to, ``coordinates`` the C texts of Index(0), Index(1), ...,
    ``accumulators`` those of Acc(0), Acc(1), ..., ``read_names`` the pointers. ``extents`` are those of the coordinates,
    where known: they make index arithmetic cheaper and loads free of branches. ``prefix`` starts every name made here.
    """

    def __init__(
        self, reads: Sequence[Operand], coordinates: Sequence[str], accumulators: Sequence[str] = (),
        read_names: Sequence[str] | None = None, extents: Sequence[int] | None = None, prefix: str = "t",
    ) -> None:  # fmt: skip
        super().__init__(coordinates, accumulators, literal)
        self.reads = reads
        self.read_names = read_names or [f"arg{i}" for i in range(len(reads))]
        self.box = bounds.box_of(extents) if extents is not None else ()
        self.prefix = prefix
        self._statements: list[str] = []
        self._count = 0

    def render(self, expr: Expr) -> tuple[list[str], str]:
        """The new statements that ``expr`` needs, and the text of its value."""
        return self.emit(prepare(expr, self.reads, self.box))

    def emit(self, prepared: Expr) -> tuple[list[str], str]:
        """``render`` of an expression that ``prepare`` has made."""
        self._statements = []
        result = self._visit(prepared)
        return self._statements, result

    def bind(self, prepared: Expr, text: str) -> None:
        """Lets ``text`` stand for an expression that the surrounding code has computed already."""
        self._names[prepared] = text

    def _name(self, dtype: DType, text: str) -> str:
        name = self._fresh()
        self._statements.append(f"const {c_type(dtype)} {name} = {text};")
        return name

    def _fresh(self) -> str:
        self._count += 1
        return f"{self.prefix}{self._count - 1}"

    def _load(self, expr: Load) -> str:
        dtype = self.reads[expr.operand].dtype
        return self._name(dtype, from_storage(dtype, f"{self.read_names[expr.operand]}[{self._offset(expr.index[0])}]"))

    def _offset(self, expr: Expr) -> str:
        """Index arithmetic as one text, so that the compiler sees the affine form."""
        form = bounds.affine(expr)
        return self._visit(expr) if form is None else affine_text(form, self.coordinates)

    def _call(self, expr: Expr) -> str:
        assert isinstance(expr, Call)
        if expr.fn == "cast":
            return self._name(expr.dtype, cast_text(self._visit(expr.args[0]), expr.args[0].dtype, expr.dtype))
        if expr.fn == "branch":
            return self._branch(expr)
        text = self._coordinate_arithmetic(expr) if expr.dtype == dtypes.int64 and bounds.is_coordinate(expr) else ""
        if not text:
            texts = [self._visit(arg) for arg in expr.args]
            text = functions.lookup(expr.fn).c(compute_type(expr.args[-1].dtype), texts, expr.args)
        return self._name(expr.dtype, _rounded(expr.dtype, text))

    def _coordinate_arithmetic(self, expr: Call) -> str:
        """Arithmetic known not to overflow, in the form that the compiler's loop analysis likes best."""
        if bounds.affine(expr) is not None:
            return self._offset(expr)
        symbol = {"add": "+", "sub": "-", "mul": "*"}.get(expr.fn, "")
        if not symbol and isinstance(expr.args[-1], Lit) and low(expr.args[-1].value) > 0:
            least = (bounds.interval(expr.args[0], self.box) or (-1, 0))[0]
            symbol = {"floordiv": "/", "mod": "%"}.get(expr.fn, "") if low(least) >= 0 else ""
        return f" {symbol} ".join(map(self._visit, expr.args)) if symbol else ""

    def _branch(self, expr: Call) -> str:
        condition = self._visit(expr.args[0])
        name, outer = self._fresh(), self._statements
        blocks = []
        for arg in expr.args[1:]:
            known, self._statements = dict(self._names), []
            value = self._visit(arg)
            blocks.append(" ".join([*self._statements, f"{name} = {value};"]))
            self._names = known
        self._statements = [*outer, f"{c_type(expr.dtype)} {name};"]
        self._statements.append(f"if ({condition}) {{ {blocks[0]} }} else {{ {blocks[1]} }}")
        return name


def affine_text(form: bounds.Affine, coordinates: Sequence[str]) -> str:
    """An affine form over the C texts of the coordinates."""
    terms = [
        coordinates[axis] if factor == 1 else f"{coordinates[axis]} * {factor}"
        for axis, factor in form.coefficients
        if coordinates[axis] != "0"
    ]
    return " + ".join([*terms, str(form.offset)] if form.offset or not terms else terms)


def _rounded(dtype: DType, text: str) -> str:
    """The text of a float computation rounded to a 16-bit float type, still held as float."""
    if dtype in (dtypes.float16, dtypes.bfloat16):
        return from_storage(dtype, to_storage(dtype, text))
    return text


def cast_text(text: str, source: DType, target: DType) -> str:
    """A value of ``source`` as one of ``target``: floats truncate, integers wrap, bool is ``!= 0``."""
    if target == dtypes.bool_:
        return f"{text} != 0"
    if target.is_float:
        held = c_type(target)
        return _rounded(target, text if c_type(source) == held else f"({held}){text}")
    if source.is_float and target.size < 4:
        return f"({target.c})(int32_t){text}"  # the way of numpy and of the vector instructions: out of range wraps
    if source.is_float and target == dtypes.uint32:
        return f"({target.c})(int64_t){text}"
    return f"({target.c}){text}"


def store(operand: Operand, name: str, offset: str, value: str, rounded: bool = True) -> str:
    """The statement that writes ``value`` to element ``offset`` of ``operand``; ``rounded``: to the operand's type, already."""
    if rounded and operand.dtype == dtypes.bfloat16:
        return f"{name}[{offset}] = (rl_bf16)(rl_bits({value}) >> 16);"
    return f"{name}[{offset}] = {to_storage(operand.dtype, value)};"
