"""The form in which a product reaches the C renderer: as few axes as possible, and possibly transposed.

Batch axes along which ``b`` does not change are further rows of ``a``. The transposed product, out^T = b^T a^T, lets a
constant ``a`` be packed, and writes an ``out`` whose rows are contiguous in m.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from redline.base.shapes import StaticShape, size
from redline.kernels.bounds import affine
from redline.kernels.ctext import digits
from redline.kernels.expr import Expr, Index, Load, children, loads
from redline.kernels.matmul.problem import Problem
from redline.kernels.problem import Operand


@dataclass(frozen=True)
class Gemm:
    """Strides are (batch..., rows, columns). ``x`` is the operand of scalars [m, k], ``w`` that of vectors [k, n].

    ``coordinates`` are the C texts of the coordinates of the problem's output, in the variables z (batch), m and n.
    """

    batch: StaticShape
    m: int
    n: int
    k: int
    x_arg: int
    w_arg: int
    x: StaticShape
    w: StaticShape
    out: StaticShape
    coordinates: tuple[str, ...]
    reads: tuple[Operand, ...]
    merged: tuple[tuple[int, int], ...] = ()  # (axis of the output, extent) of the axes that the rows are made of, if several

    @property
    def num_batches(self) -> int:
        return size(self.batch)

    @property
    def w_constant(self) -> bool:
        return self.reads[self.w_arg].constant

    def coordinates_of(self, prepared: Expr) -> tuple[str, ...]:
        """``coordinates`` for one expression: no division of m where all that it loads steps evenly over the merged axes."""
        axes = [axis for axis, _ in self.merged]
        if (
            not axes
            or not set(axes).isdisjoint(_bare(prepared))
            or not all(_steps_with_m(v, self.merged) for v in loads(prepared))
        ):
            return self.coordinates
        return tuple("m" if a == axes[-1] else "0" if a in axes else text for a, text in enumerate(self.coordinates))


def _bare(expr: Expr) -> Iterator[int]:
    """The axes whose coordinates are used outside of loads."""
    if isinstance(expr, Index):
        yield expr.axis
    for child in () if isinstance(expr, Load) else children(expr):
        yield from _bare(child)


def _steps_with_m(load: Load, merged: Sequence[tuple[int, int]]) -> bool:
    """Whether the element that is loaded moves on evenly from row to row."""
    form = affine(load.index[0])
    if form is None:
        return False
    step = form.of(merged[-1][0])
    for axis, extent in reversed(merged):
        if form.of(axis) != step:
            return False
        step *= extent
    return True


def batch_texts(batch: StaticShape) -> list[str]:
    """C: the coordinates along the batch axes, from the flat index z."""
    return digits("z", batch)


def of(problem: Problem, swapped: bool = False) -> Gemm:
    """The canonical form of ``problem``, transposed if ``swapped``."""
    gemm = Gemm(
        problem.batch, problem.m, problem.n, problem.k, 0, 1, problem.a.strides, problem.b.strides, problem.out.strides,
        (*batch_texts(problem.batch), "m", "n"), problem.reads,
    )  # fmt: skip
    return _merge_batches(_transposed(gemm) if swapped else gemm)


def _transposed(gemm: Gemm) -> Gemm:
    flip = lambda strides: (*strides[:-2], strides[-1], strides[-2])  # noqa: E731
    return replace(
        gemm, m=gemm.n, n=gemm.m, x_arg=gemm.w_arg, w_arg=gemm.x_arg, x=flip(gemm.w), w=flip(gemm.x), out=flip(gemm.out),
        coordinates=(*gemm.coordinates[:-2], "n", "m"),
    )  # fmt: skip


def _merge_batches(gemm: Gemm) -> Gemm:
    """Makes rows of the trailing batch axes along which w stands still, as long as x and out step evenly."""
    batch, m, x, w, out = list(gemm.batch), gemm.m, list(gemm.x), list(gemm.w), list(gemm.out)
    merged = 0
    while batch and (batch[-1] == 1 or (w[-3] == 0 and _steps_evenly(m, x, out))):
        extent = batch.pop()
        merged += 1
        if m == 1 and extent != 1:
            x[-2], out[-2] = x[-3], out[-3]
        for strides in (x, w, out):
            del strides[-3]
        m *= extent
    texts = batch_texts(tuple(batch)) + ["0"] * merged
    texts = _row_texts(gemm, len(batch), m, texts)
    row = len(gemm.batch) + (gemm.coordinates[-2] == "n")
    axes = [*zip(range(len(batch), len(gemm.batch)), gemm.batch[len(batch) :], strict=True), (row, gemm.m)]
    large = tuple((axis, extent) for axis, extent in axes if extent != 1)
    return replace(
        gemm, batch=tuple(batch), m=m, x=tuple(x), w=tuple(w), out=tuple(out), coordinates=tuple(texts),
        merged=large if len(large) > 1 else (),
    )  # fmt: skip


def _steps_evenly(m: int, x: list[int], out: list[int]) -> bool:
    return all(m == 1 or strides[-3] == m * strides[-2] for strides in (x, out))


def _row_texts(gemm: Gemm, num_batches: int, m: int, batch: list[str]) -> list[str]:
    """C: the coordinates of the output when batch axes ``num_batches`` on have become rows."""
    texts, below = list(batch), m
    for axis in range(num_batches, len(gemm.batch)):
        extent, above = gemm.batch[axis], below
        below //= extent
        if extent != 1:
            texts[axis] = _digit("m", above, below, m)
    row = _digit("m", below, 1, m) if gemm.m != 1 else "0"
    swapped = gemm.coordinates[-2] == "n"
    return [*texts, "n", row] if swapped else [*texts, row, "n"]


def _digit(variable: str, above: int, below: int, whole: int) -> str:
    """C: the digit of ``variable`` < ``whole`` that counts multiples of ``below`` up to ``above``."""
    text = f"{variable} / {below}" if below != 1 else variable
    text = f"{text} % {above // below}" if above != whole else text
    return f"({text})" if text != variable else text
