"""Epilogues of crew.h as CUDA C: one sum, its column and its row's element at a time.

What an epilogue may read: constants along the columns (one value, or one for each column), and one operand of the result's
own shape and layout, which crew.h brings through shared memory. Anything else has no such form, and ``reading`` gives None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redline.base import dtypes
from redline.base.dtypes import DType
from redline.kernels import bounds
from redline.kernels.expr import Call, Expr, Load, loads
from redline.kernels.functions import compute_type
from redline.kernels.prepare import prepare
from redline.kernels.problem import Operand
from redline.kernels.scope import Scope

HALVES = {"float16": "f16", "bfloat16": "bf16"}
Pointers = Mapping[int, str]
POINTERS = {"float32": "const float *", "float16": "const unsigned short *", "bfloat16": "const unsigned short *"}
_TEXTS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}",
    "max": "larger({0}, {1})", "min": "smaller({0}, {1})", "clamp": "smaller(larger({0}, {1}), {2})", "gelu": "gelu({0})",
}  # fmt: skip
HELPERS = """
static __device__ __forceinline__ float larger(float a, float b) {
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(a) : "f"(a), "f"(b));
  return a;
}

static __device__ __forceinline__ float smaller(float a, float b) {
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(a) : "f"(a), "f"(b));
  return a;
}

static __device__ __forceinline__ float from_f16(unsigned short h) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
  return x;
}

static __device__ __forceinline__ float from_bf16(unsigned short h) {
  return __uint_as_float((unsigned)h << 16);
}

static __device__ __forceinline__ float rounded_f16(float x) {
  unsigned short h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return from_f16(h);
}

static __device__ __forceinline__ float rounded_bf16(float x) {
  unsigned short h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return from_bf16(h);
}

/* x * (1 + erf(x / sqrt 2)) / 2; the factor of x is within 1.3e-5: its polynomial leaves 0 .. 1 only where it is cut. */
static __device__ __forceinline__ float gelu(float x) {
  float u = x * x, p = 5.99800563e-11f;
  p = p * u - 5.63327401e-09f;
  p = p * u + 2.34366170e-07f;
  p = p * u - 5.76075057e-06f;
  p = p * u + 9.45742383e-05f;
  p = p * u - 1.11414723e-03f;
  p = p * u + 9.83012847e-03f;
  p = p * u - 6.63603693e-02f;
  p = p * u + 3.98907437e-01f;
  return x * __saturatef(x * p + 0.5f);
}
"""


@dataclass(frozen=True)
class Reading:
    """How each load of an epilogue is done: operands read by column (their stride along it), and the one read by element."""

    columns: dict[int, int]
    elements: int | None


def reading(epilogue: Expr, reads: Sequence[Operand], out: Operand) -> Reading | None:
    """None where the epilogue has no form here."""
    prepared = prepare(epilogue, reads, bounds.box_of(out.shape))
    columns: dict[int, int] = {}
    elements: set[int] = set()
    whole = {axis: stride for axis, (extent, stride) in enumerate(zip(out.shape, out.strides, strict=True)) if extent > 1}
    for load in loads(prepared):
        form, operand = bounds.affine(load.index[0]), reads[load.operand]
        if form is None or form.offset or operand.dtype.name not in POINTERS:
            return None
        axes = dict(form.coefficients)
        if set(axes) <= {len(out.shape) - 1} and columns.get(load.operand, axes.get(len(out.shape) - 1, 0)) >= 0:
            columns[load.operand] = axes.get(len(out.shape) - 1, 0)
        elif axes == whole and operand.dtype == out.dtype:
            elements.add(load.operand)
        else:
            return None
    if len(elements) > 1 or elements & set(columns) or not can_render(prepared):
        return None
    return Reading(columns, next(iter(elements), None))


def can_render(expr: Expr) -> bool:
    """Whether every function in ``expr`` has a form here; how it reads is another question."""
    if isinstance(expr, Load):
        return True
    if not isinstance(expr, Call):
        return True
    known = expr.fn in _TEXTS or expr.fn == "cast"
    floats = expr.dtype.is_float and compute_type(expr.dtype) == dtypes.float32
    return known and floats and all(can_render(arg) for arg in expr.args)


def value_text(epilogue: Expr, reads: Sequence[Operand], out: Operand, how: Reading) -> str:
    """The functions ``value`` and ``packed`` of crew.h."""
    if isinstance(epilogue, Call) and epilogue.fn == "cast" and epilogue.dtype == out.dtype:
        epilogue = epilogue.args[0]  # packed rounds
    places = {i: f"column * {stride}" if stride else "0" for i, stride in how.columns.items()}
    renderer = Renderer(reads, places, how.elements)
    result = renderer.value(prepare(epilogue, reads, bounds.box_of(out.shape)))
    half = HALVES[out.dtype.name]
    body = "".join(f"  {line}\n" for line in renderer.statements)
    return f"""
static __device__ __forceinline__ float value(const Params &p, float acc, int column, float element) {{
{body}  return {result};
}}

static __device__ __forceinline__ unsigned packed(const Params &p, float left, float right, int column, unsigned elements) {{
  left = value(p, left, column, from_{half}((unsigned short)elements));
  right = value(p, right, column + 1, from_{half}((unsigned short)(elements >> 16)));
  asm("cvt.rn.{half}x2.f32 %0, %1, %2;" : "=r"(elements) : "f"(right), "f"(left));
  return elements;
}}
"""


class Renderer(Scope):
    """``places``: where an operand's element is, behind its pointer; ``elements``: the one that is there as ``element``."""

    def __init__(self, reads: Sequence[Operand], places: Pointers, elements: int | None) -> None:
        super().__init__([], ["acc"], _literal)
        self.reads, self.places, self.elements, self.statements = reads, places, elements, list[str]()

    def value(self, expr: Expr) -> str:
        return self._visit(expr)

    def _name(self, text: str) -> str:
        name = f"t{len(self.statements)}"
        self.statements.append(f"float {name} = {text};")
        return name

    def _load(self, expr: Load) -> str:
        if expr.operand == self.elements:
            return "element"
        dtype = self.reads[expr.operand].dtype
        text = f"p.arg{expr.operand}[{self.places[expr.operand]}]"
        return self._name(text if dtype == dtypes.float32 else f"from_{HALVES[dtype.name]}({text})")

    def _call(self, expr: Expr) -> str:
        assert isinstance(expr, Call)
        texts = [self._visit(arg) for arg in expr.args]
        text = texts[0] if expr.fn == "cast" else _TEXTS[expr.fn].format(*texts)
        return self._name(f"rounded_{HALVES[expr.dtype.name]}({text})" if expr.dtype.name in HALVES else text)


def _literal(value: float | int | bool, dtype: DType) -> str:
    number = float(dtype.numpy.type(value))
    if number != number or number in (float("inf"), -float("inf")):
        bits = 0x7FC00000 if number != number else 0x7F800000 if number > 0 else 0xFF800000
        return f"__uint_as_float({bits}u)"
    return f"({number!r}f)" if "." in repr(number) or "e" in repr(number) else f"({number}f)"
