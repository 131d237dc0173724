"""The C text of a row kernel: passes over a row that lies in scratch, in the first-level cache.

Vectors run along the row, with partial results in lanes that are merged after a pass; or, where memory is contiguous
along another axis, across neighbouring rows, each of which then has a lane of its own.
"""

from collections.abc import Sequence

from redline.base.dtypes import float64
from redline.base.extents import high, is_open, minimum
from redline.base.shapes import size
from redline.kernels import bounds, cexpr
from redline.kernels.ctext import FLOATS, VECTORIZE_LONG, block, in_vectors, loop, vectorized
from redline.kernels.expr import coordinates, loads
from redline.kernels.parts import Axis, kernel, once, walk
from redline.kernels.prepare import linear_index, prepare
from redline.kernels.problem import CpuTarget, KernelCode
from redline.kernels.row.problem import Problem, Schedule

LANES = 64


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    rank = len(problem.shape)
    across = _vector_axis(problem)
    row = _AlongRow(problem) if across is None else _AcrossRows(problem, across)
    axes = [row.axis(axis) for axis in range(rank - 1)]
    part = once([]) if size(problem.shape) == 0 else walk(axes, row.body(), schedule.max_chunks)
    num_chunks = minimum(part.num_steps, schedule.max_chunks)
    text = "\n".join(kernel(problem.reads, problem.writes, part, num_chunks)) + "\n"
    return KernelCode("row", cexpr.prelude(text) + text, num_chunks, high(row.num_held) * problem.prologue.dtype.size)


def _vector_axis(problem: Problem) -> int | None:
    """The leading axis along which x is contiguous, where it is not so along the row."""
    box = bounds.box_of(problem.shape)
    forms = [bounds.affine(load.index[0]) for load in loads(prepare(problem.prologue, problem.reads, box))]
    steps = lambda axis: [form.of(axis) for form in forms if form is not None]  # noqa: E731
    rank = len(problem.shape)
    if all(abs(step) <= 1 for step in steps(rank - 1)):
        return None
    wide = lambda extent: not is_open(extent) and extent >= 8  # noqa: E731
    return next((axis for axis in range(rank - 2, -1, -1) if 1 in steps(axis) and wide(problem.shape[axis])), None)


class _AlongRow:
    """One row at a time. Lanes are partial results; ``held[j]`` is element j; a merged result is a scalar."""

    held = "held[j]"
    suffix = ""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.type = problem.prologue.dtype.c
        self.coordinates = [f"i{axis}" for axis in range(len(problem.shape) - 1)] + ["j"]
        self.lanes = LANES if is_open(problem.length) else min(LANES, 1 << max(0, problem.length.bit_length() - 1))

    @property
    def num_held(self) -> int:
        return self.problem.length

    def axis(self, axis: int) -> Axis:
        return f"i{axis}", self.problem.shape[axis]

    def body(self) -> list[str]:
        return [f"{self.type} *restrict held = scratch;", *_PASSES[self.problem.kind](self)]

    # What a pass does with each element is said in terms of j (its place in the row) and l (its lane).

    def sweep(self, element: Sequence[str]) -> list[str]:
        whole = self.problem.length // self.lanes * self.lanes
        inner = [
            in_vectors(VECTORIZE_LONG, element, min(FLOATS, self.lanes)),
            *loop("l", 0, self.lanes, ["const int64_t j = j0 + l;", *element]),
        ]
        lines = block(f"for (int64_t j0 = 0; j0 < {whole}; j0 += {self.lanes})", inner)
        rest = self.problem.length - whole
        return lines + (
            [VECTORIZE_LONG, *loop("l", 0, rest, [f"const int64_t j = {whole} + l;", *element])]
            if is_open(rest) or rest
            else []
        )

    def begin(self, name: str, value: str) -> list[str]:
        fill = f"for (int64_t l = 0; l < {self.lanes}; ++l) {name}[l] = {value};"
        return [f"{self.type} {name}[{self.lanes}] __attribute__((aligned(64)));", fill]

    def merge(self, name: str, fold: str, result: str) -> list[str]:
        """The lanes ``name`` become one: ``fold`` is "sum" or "max", ``result`` a text over $, what they fold to."""
        one = f"rl_{fold}_lanes({name}, {self.lanes})"
        lines: list[str] = []
        if self.lanes % 16 or self.type != "float":
            both = f"{name}[l] = {_FOLD[fold].format(f'{name}[l]', f'{name}[l + half]')};"
            lines = [f"for (int64_t half = {self.lanes // 2}; half; half /= 2) for (int64_t l = 0; l < half; ++l) {both}"]
            one = f"{name}[0]"
        return [*lines, f"const {self.type} {name}_all = {result.replace('$', one)};"]

    def merged(self, name: str) -> str:
        return f"{name}_all"

    # Texts that both forms share.

    def load(self) -> list[str]:
        """Computes x into ``held``, and writes it where a second write asks for it."""
        renderer = cexpr.Renderer(self.problem.reads, self.coordinates, extents=self.problem.shape)
        lines, value = renderer.render(self.problem.prologue)
        lines += [f"const {self.type} x = {value};", f"{self.held} = x;"]
        if len(self.problem.writes) == 2:
            rounded = cexpr.cast_text("x", self.problem.prologue.dtype, self.problem.writes[1].dtype)
            lines.append(self._store(1, rounded))
        return lines

    def store(self, value: str) -> list[str]:
        """The last pass: y is ``value``."""
        renderer = cexpr.Renderer(self.problem.reads, self.coordinates, ["y"], extents=self.problem.shape, prefix="e")
        lines, result = renderer.render(self.problem.epilogue)
        return self.sweep([f"const {self.type} y = {value};", *lines, self._store(0, result)])

    def _store(self, number: int, value: str) -> str:
        write = self.problem.writes[number]
        form = bounds.affine(linear_index(write, coordinates(len(write.shape))))
        assert form is not None
        return cexpr.store(write, f"out{number}", cexpr.affine_text(form, self.coordinates), value)

    def exp(self, text: str) -> str:
        return f"exp({text})" if self.problem.prologue.dtype == float64 else f"rl_exp({text})"

    def log(self, text: str) -> str:
        return f"log({text})" if self.problem.prologue.dtype == float64 else f"rl_log({text})"

    def root(self, text: str) -> str:
        return f"__builtin_sqrt{'' if self.problem.prologue.dtype == float64 else 'f'}({text})"


class _AcrossRows(_AlongRow):
    """``lanes`` neighbouring rows at a time, neighbours along ``across``; lane l belongs to row l of them."""

    def __init__(self, problem: Problem, across: int) -> None:
        super().__init__(problem)
        self.across = across
        self.lanes = min(LANES, problem.shape[across])
        self.held = f"held[j * {self.lanes} + l]"
        self.first = f"(b * {self.lanes} + {self.lanes} <= {self.extent} ? b * {self.lanes} : {self.extent - self.lanes})"

    @property
    def extent(self) -> int:
        return self.problem.shape[self.across]

    @property
    def num_held(self) -> int:
        return self.problem.length * self.lanes

    def axis(self, axis: int) -> Axis:
        return ("b", -(-self.extent // self.lanes)) if axis == self.across else super().axis(axis)

    def body(self) -> list[str]:
        return [f"const int64_t first = {self.first};", *super().body()]

    def sweep(self, element: Sequence[str]) -> list[str]:
        inner = vectorized("l", 0, self.lanes, [f"const int64_t i{self.across} = first + l;", *element])
        return loop("j", 0, self.problem.length, inner)

    def merge(self, name: str, fold: str, result: str) -> list[str]:
        text = result.replace("$", f"{name}[l]")
        return [f"for (int64_t l = 0; l < {self.lanes}; ++l) {name}[l] = {text};"]

    def merged(self, name: str) -> str:
        return f"{name}[l]"


def _softmax(row: _AlongRow) -> list[str]:
    # A NaN need not win the maximum: its own exponential makes the sum NaN.
    power = [f"const {row.type} p = {_shifted_power(row)};", f"{row.held} = p;", "sum[l] += p;"]
    return [*_maximum(row), *row.begin("sum", "0"), *row.sweep(power), *row.merge("sum", "sum", "1 / $"),
            *row.store(f"{row.held} * {row.merged('sum')}")]  # fmt: skip


def _log_softmax(row: _AlongRow) -> list[str]:
    power = [f"sum[l] += {_shifted_power(row)};"]
    return [*_maximum(row), *row.begin("sum", "0"), *row.sweep(power), *row.merge("sum", "sum", row.log("$")),
            *row.store(f"{row.held} - {row.merged('top')} - {row.merged('sum')}")]  # fmt: skip


def _shifted_power(row: _AlongRow) -> str:
    return row.exp(f"{row.held} - {row.merged('top')}")


def _maximum(row: _AlongRow) -> list[str]:
    take = [*row.load(), "top[l] = x > top[l] ? x : top[l];"]
    return [*row.begin("top", "-__builtin_inff()"), *row.sweep(take), *row.merge("top", "max", "$")]


def _layer_norm(row: _AlongRow) -> list[str]:
    n, epsilon = row.problem.length, cexpr.literal(row.problem.epsilon, row.problem.prologue.dtype)
    squares = [f"const {row.type} d = {row.held} - {row.merged('mean')};", "scale[l] += d * d;"]
    return [
        *row.begin("mean", "0"), *row.sweep([*row.load(), "mean[l] += x;"]), *row.merge("mean", "sum", f"$ / {n}"),
        *row.begin("scale", "0"), *row.sweep(squares), *row.merge("scale", "sum", f"1 / {row.root(f'$ / {n} + {epsilon}')}"),
        *row.store(f"({row.held} - {row.merged('mean')}) * {row.merged('scale')}"),
    ]  # fmt: skip


def _rms_norm(row: _AlongRow) -> list[str]:
    n, epsilon = row.problem.length, cexpr.literal(row.problem.epsilon, row.problem.prologue.dtype)
    return [
        *row.begin("scale", "0"), *row.sweep([*row.load(), "scale[l] += x * x;"]),
        *row.merge("scale", "sum", f"1 / {row.root(f'$ / {n} + {epsilon}')}"),
        *row.store(f"{row.held} * {row.merged('scale')}"),
    ]  # fmt: skip


_FOLD = {"sum": "{0} + {1}", "max": "{0} > {1} ? {0} : {1}"}
_PASSES = {"softmax": _softmax, "log_softmax": _log_softmax, "layer_norm": _layer_norm, "rms_norm": _rms_norm}
