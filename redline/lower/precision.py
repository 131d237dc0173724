"""Lower precision as a rewriting of the program: activations and weights in 16 bits, sums and sensitive steps in float32.

Every temporary of float32 becomes one of the target type, and so do constants that matter for speed; inputs and outputs
stay as the model has them. Expressions keep computing in float32: loads widen, and what is stored is rounded once. An input
that a product reads is first copied into a temporary; images are copied channels last, with room for whole vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from redline.base.dtypes import DType, float32
from redline.kernels import nest
from redline.kernels.expr import Call, Expr, Load, cast, coordinates, transform
from redline.kernels.problem import Operand
from redline.lower.program import Buffer, Program, Step, View

SMALL_CONSTANT = 1 << 16  # elements; smaller ones that no product reads stay in float32
PRODUCTS = {"matmul": 2, "conv": 2, "depthwise": 2, "attention": 3}  # the read operands that must have one type


def reduce_precision(program: Program, dtype: DType) -> Program:
    """``program`` with float32 stored as ``dtype``."""
    return _Reduction(program, dtype).run()


class _Reduction:
    def __init__(self, program: Program, dtype: DType) -> None:
        self.program, self.dtype = program, dtype
        multiplied = {view.buffer for step in program.steps for view in step.reads[: PRODUCTS.get(step.family, 0)]}
        self.new: dict[Buffer, Buffer] = {}
        self.constants = dict(program.constants)
        self.buffers: list[Buffer] = []
        for buffer in program.buffers:
            narrow = buffer.dtype == float32 and (
                buffer.kind == "temp"
                or (buffer.kind == "constant" and (buffer in multiplied or buffer.num_elements > SMALL_CONSTANT))
            )
            self.new[buffer] = replace(buffer, dtype=dtype) if narrow else buffer
            self.buffers.append(self.new[buffer])
            if narrow and buffer.kind == "constant":
                limit = float(np.finfo(np.float16).max) if dtype.name == "float16" else np.inf
                values = np.clip(self.constants[buffer.index], -limit, limit)
                self.constants[buffer.index] = values.astype(dtype.numpy)
        self.copies: dict[View, View] = {}
        self.steps: list[Step] = []

    def run(self) -> Program:
        for step in self.program.steps:
            self._step(step)
        inputs = tuple((name, self.new[buffer], shape) for name, buffer, shape in self.program.inputs)
        outputs = tuple((name, self.new[buffer], shape) for name, buffer, shape in self.program.outputs)
        return Program(self.program.name, tuple(self.buffers), self.constants, tuple(self.steps), inputs, outputs)

    def _view(self, view: View) -> View:
        return replace(view, buffer=self.new[view.buffer])

    def _step(self, step: Step) -> None:
        reads = [self._view(view) for view in step.reads]
        first = PRODUCTS.get(step.family, 0)
        if any(view.dtype == self.dtype for view in reads[:first]):
            for i in range(first):
                if reads[i].dtype == float32:
                    reads[i] = self._narrowed(reads[i])
        writes = [self._view(view) for view in step.writes]
        problem = _retyped(step.problem, reads, writes)
        self.steps.append(replace(step, problem=problem, reads=tuple(reads), writes=tuple(writes)))

    def _narrowed(self, view: View) -> View:
        """A copy of an input in the narrow type, contiguous in the order of its axes."""
        if view not in self.copies:
            buffer = Buffer(max(b.index for b in self.buffers) + 1, "temp", self.dtype, int(np.prod(view.shape)))
            self.buffers.append(buffer)
            copy = View.whole(buffer, view.shape)
            body = cast(Load(float32, 0, coordinates(len(view.shape))), self.dtype)
            problem = nest.Problem((view.operand,), (copy.operand,), (body,))
            self.steps.append(Step("nest", problem, (view,), (copy,), (f"to {self.dtype.name}",), "products read one type"))
            self.copies[view] = copy
        return self.copies[view]


def _retyped(problem: Any, reads: Sequence[View], writes: Sequence[View]) -> Any:
    """The problem with the operands of ``reads`` and ``writes``: loads widen to what they gave, results are rounded."""
    old = tuple(problem.reads)
    new = tuple(view.operand for view in reads)
    outs = {before: view.operand for before, view in zip(problem.writes, writes, strict=True)}
    changes: dict[str, Any] = {}
    position = 0
    for f in fields(problem):
        value = getattr(problem, f.name)
        if f.name == "reads":
            changes[f.name] = new
        elif f.name == "extra":
            changes[f.name] = new[len(old) - len(value) :] if value else ()
        elif isinstance(value, Operand) and f.name in ("a", "b", "x", "w"):
            changes[f.name] = new[position]
            position += 1
        elif isinstance(value, Operand):
            changes[f.name] = outs[value]
        elif f.name == "writes":
            changes[f.name] = tuple(view.operand for view in writes)
        elif isinstance(value, Expr):
            changes[f.name] = _widened(value, old, new)
        elif isinstance(value, tuple) and value and isinstance(value[0], Expr):
            changes[f.name] = tuple(_widened(e, old, new) for e in value)
    _round(problem, changes)
    return replace(problem, **changes)


def _widened(expr: Expr, old: Sequence[Operand], new: Sequence[Operand]) -> Expr:
    def leaf(node: Expr) -> Expr | None:
        if not isinstance(node, Load) or new[node.operand].dtype == old[node.operand].dtype:
            return None
        index = tuple(_widened(i, old, new) for i in node.index)
        return cast(Load(new[node.operand].dtype, node.operand, index), node.dtype)

    return transform(expr, leaf)


ROUNDED = {"epilogue": "out", "epilogues": "writes", "bodies": "writes"}  # expressions that have the type of a write


def _round(problem: Any, changes: dict[str, Any]) -> None:
    """Casts the expressions that give the written values to the new types of the writes."""
    writes: Mapping[str, Any] = changes
    if "writes" in changes:
        targets = [w.dtype for w in writes["writes"]]
    else:
        names = [n for n in ("out", "values", "indices") if n in changes]
        targets = [changes[n].dtype for n in names]
    for name in ("epilogue", "initial", "value", "key", "body"):
        if name in changes:
            changes[name] = cast(_plain(changes[name]), targets[0])
    plural = "epilogues" if changes.get("epilogues") else "bodies"
    if plural in changes and not (plural == "bodies" and getattr(problem, "reduction", None) is not None):
        changes[plural] = tuple(cast(_plain(e), t) for e, t in zip(changes[plural], targets, strict=True))


def _plain(expr: Expr) -> Expr:
    """Without the cast back that a later cast undoes."""
    if isinstance(expr, Call) and expr.fn == "cast" and expr.args[0].dtype == float32 and expr.dtype.is_float:
        return expr.args[0]
    return expr
