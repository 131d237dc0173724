"""The first convolution of an image model: few channels, so that neither vectors nor tensor cores would be filled.

The image is copied once, in 16 bits, with its padding in memory and its channels padded to four. In that copy the window's
columns and channels lie side by side, so a row of the window is one run of elements: the convolution of an image of one
channel whose window is ``run`` elements wide and moves 4 * stride at a time. The filters get zeros where the run was padded.
"""

from dataclasses import replace

import numpy as np

from redline.base.dtypes import DType, bool_, float32
from redline.kernels import conv, nest
from redline.kernels.conv.problem import Problem
from redline.kernels.expr import Call, Expr, Load, call, cast, coordinates, integer, lit
from redline.lower.editing import Editing
from redline.lower.program import Program, Step, View

CHANNELS = 4
RUN_UNIT = 16


def rewrite(program: Program) -> Program:
    """``program`` with the convolutions of its float32 image inputs, read through 16-bit copies, in the form above."""
    return _Rewriting(program).run()


class _Rewriting(Editing):
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.copies: dict[tuple[object, ...], View] = {}
        self.steps: list[Step] = []

    def run(self) -> Program:
        for step in self.program.steps:
            problem = step.problem
            image = _image_of(step, self.program) if isinstance(problem, Problem) and fits(problem) else None
            done = self._convolution(step, problem, image) if isinstance(problem, Problem) and image is not None else step
            self.steps.append(done)
        read = {view.buffer for step in self.steps for view in step.reads}
        kept = [s for s in self.steps if any(v.buffer.kind == "output" or v.buffer in read for v in s.writes)]
        return self.finished(kept)

    def _convolution(self, step: Step, problem: Problem, image: View) -> Step:
        key = (image, copied_shape(problem), problem.pads)
        dtype = step.reads[0].dtype
        if key not in self.copies:
            copy = View.whole(self.buffer("temp", dtype, int(np.prod(key[1]))), copied_shape(problem))
            made = nest.Problem((image.operand,), (copy.operand,), (copy_body(problem, dtype),))
            self.steps.append(Step("nest", made, (image,), (copy,), ("the image",), "padded for its convolution"))
            self.copies[key] = copy
        x = as_runs(self.copies[key])
        w = self.constant(filters(step.reads[1].elements(self.constants), problem))
        return replace(step, problem=as_problem(problem, x, w), reads=(x, w, *step.reads[2:]))


def _image_of(step: Step, program: Program) -> View | None:
    """The input that the convolution's x is a plain copy of, in the convolution's order of axes."""
    x = step.reads[0]
    writers = program.writers(x.buffer)
    problem = writers[0].problem if len(writers) == 1 else None
    if not isinstance(problem, nest.Problem) or len(writers[0].reads) != 1:
        return None
    source, target = writers[0].reads[0], writers[0].writes[0]
    if source.buffer.kind != "input" or source.dtype != float32 or problem.reduction is not None or len(writers[0].writes) != 1:
        return None
    plain = Load(float32, 0, tuple(integer(0) if e == 1 else i for e, i in zip(source.shape, _axes(source), strict=True)))
    body = problem.bodies[0]
    while isinstance(body, Call) and body.fn == "cast":
        body = body.args[0]
    if body != plain or source.shape != target.shape or x.offset != target.offset:
        return None
    strides = []
    for extent, stride in zip(x.shape, x.strides, strict=True):
        found = [a for a, s in enumerate(target.strides) if s == stride and target.shape[a] == extent]
        if extent > 1 and len(found) != 1:
            return None
        strides.append(source.strides[found[0]] if extent > 1 else 0)
    return View(source.buffer, x.shape, tuple(strides), source.offset)


def _axes(view: View) -> tuple[Expr, ...]:
    return coordinates(len(view.shape))


def fits(problem: Problem) -> bool:
    """Whether ``problem`` is a plain 2-D convolution in 16 bits of an image with at most four channels."""
    return (
        type(problem) is conv.Problem
        and problem.rank == 2
        and problem.groups == 1
        and problem.x.dtype.is_float
        and problem.x.dtype.size == 2
        and problem.x.shape[-1] <= CHANNELS
        and problem.w.constant
        and problem.dilations == (1, 1)
        and problem.pad_value == 0
    )


def run_of(problem: Problem) -> int:
    """Elements of one row of the window, padded."""
    return -(-problem.w.shape[3] * CHANNELS // RUN_UNIT) * RUN_UNIT


def copied_shape(problem: Problem) -> tuple[int, int, int, int]:
    """[N, padded height, padded width, 4]: every run of the window lies inside a row."""
    n, height, _, _ = problem.x.shape
    _, _, columns, _ = problem.out.shape
    reach = (columns - 1) * problem.strides[1] * CHANNELS + run_of(problem)
    rows = (problem.out.shape[1] - 1) * problem.strides[0] + problem.w.shape[2]
    return n, max(rows, height + problem.pads[0]), -(-reach // CHANNELS), CHANNELS


def copy_body(problem: Problem, dtype: DType) -> Expr:
    """What element (n, h, w, c) of the copy is: the image inside its bounds, else zero."""
    n, h, w, c = coordinates(4)
    row, column = call("sub", h, integer(problem.pads[0])), call("sub", w, integer(problem.pads[1]))
    inside: Expr = call("lt", c, integer(problem.x.shape[3]), dtype=bool_)
    for place, extent in ((row, problem.x.shape[1]), (column, problem.x.shape[2])):
        for fn, bound in (("ge", 0), ("lt", extent)):
            inside = call("and", inside, call(fn, place, integer(bound), dtype=bool_), dtype=bool_)
    return cast(call("where", inside, Load(float32, 0, (n, row, column, c)), lit(0.0, float32)), dtype)


def as_runs(copy: View) -> View:
    """The copy as [N, height, width * 4, 1]."""
    n, height, width, _ = copy.shape
    return View(copy.buffer, (n, height, width * CHANNELS, 1), (height * width * CHANNELS, width * CHANNELS, 1, 1))


def filters(w: np.ndarray, problem: Problem) -> np.ndarray:
    """[M, C, kh, kw] as [M, 1, kh, run]."""
    m, channels, rows, columns = w.shape
    turned = np.pad(np.transpose(w, (0, 2, 3, 1)), ((0, 0), (0, 0), (0, 0), (0, CHANNELS - channels)))
    flat = turned.reshape(m, rows, columns * CHANNELS)
    return np.ascontiguousarray(np.pad(flat, ((0, 0), (0, 0), (0, run_of(problem) - flat.shape[2])))[:, None])


def as_problem(problem: Problem, x: View, w: View) -> Problem:
    """The same convolution of runs."""
    return replace(
        problem, x=x.operand, w=w.operand, strides=(problem.strides[0], problem.strides[1] * CHANNELS), pads=(0, 0, 0, 0)
    )
