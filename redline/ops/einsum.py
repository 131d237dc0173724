"""Einsum, and its way down to Transpose, Reshape, ReduceSum, MatMul and Mul.

A term is a string of labels, one for each axis of its operand. The axes under an ellipsis get labels of their own, the
private-use characters below, numbered from the back so that they broadcast like numpy's.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.base.shapes import Dim
from redline.ir import TensorType, Value
from redline.ops.registry import Op, define, make
from redline.ops.rules import ints, reshaped, transposed, wide
from redline.ops.slicing import sliced

ELLIPSIS = "..."


def _hidden(count: int) -> str:
    """The labels of ``count`` axes under an ellipsis."""
    return "".join(chr(0xE000 + i) for i in reversed(range(count)))


@dataclass(frozen=True)
class Equation:
    """The labels of each operand and of the output, and the extent of every label."""

    terms: tuple[str, ...]
    output: str
    extents: dict[str, Dim]


def parse(op: Op) -> Equation:
    """The equation of an Einsum node against its inputs' shapes; raises ModelError where they do not fit."""
    text = str(op.attr("equation", "")).replace(" ", "")
    left, arrow, right = text.partition("->")
    ranks = [len(op.type(i).shape) for i in range(len(op.inputs))]
    raw = left.split(",")
    if len(raw) != len(ranks) or not all(_well_formed(term) for term in [*raw, right]):
        raise _bad(op, text)
    hidden = [rank - len(term.replace(ELLIPSIS, "")) for term, rank in zip(raw, ranks, strict=True)]
    if any(count < 0 or (count > 0 and ELLIPSIS not in term) for term, count in zip(raw, hidden, strict=True)):
        raise _bad(op, text)
    terms = tuple(term.replace(ELLIPSIS, _hidden(count)) for term, count in zip(raw, hidden, strict=True))
    widest = _hidden(max(hidden))
    letters = "".join(terms)
    once = "".join(c for c in sorted(set(letters)) if letters.count(c) == 1 and c.isalpha())
    output = right.replace(ELLIPSIS, widest) if arrow else widest + once
    if len(set(output)) != len(output) or not set(output) <= set(letters) or not set(widest) <= set(output):
        raise _bad(op, text)
    return Equation(terms, output, _extents(op, terms, text))


def _well_formed(term: str) -> bool:
    letters = term.replace(ELLIPSIS, "", 1)
    return letters == "" or (letters.isalpha() and letters.isascii())


def _bad(op: Op, text: str) -> ModelError:
    given = ", ".join(repr(op.type(i)) for i in range(len(op.inputs)))
    return ModelError(op.label, f"equation {text!r} does not fit {given}", "one term an input, one label an axis")


def _extents(op: Op, terms: tuple[str, ...], text: str) -> dict[str, Dim]:
    extents: dict[str, Dim] = {}
    for i, term in enumerate(terms):
        for label, dim in zip(term, op.type(i).shape, strict=True):
            if extents.get(label, 1) == 1:
                extents[label] = dim
            elif dim not in (1, extents[label]):
                raise _bad(op, text)
    return extents


def _infer(op: Op) -> list[TensorType]:
    equation = parse(op)
    return [TensorType(op.type(0).dtype, tuple(equation.extents[label] for label in equation.output))]


def _reference(op: Op, *arrays: np.ndarray) -> np.ndarray:
    return np.einsum(op.attr("equation"), *map(wide, arrays), optimize=True)


@dataclass(frozen=True)
class Term:
    """A value with a label for each of its axes."""

    value: Value
    labels: str

    def extent(self, label: str) -> int:
        return shapes.static(self.value.shape)[self.labels.index(label)]

    def ordered(self, labels: str) -> Value:
        """The value with its axes in the order of ``labels``."""
        return transposed(self.value, [self.labels.index(label) for label in labels])

    def shaped(self, *groups: str) -> Value:
        """The value with each group of labels merged into one axis."""
        shape = tuple(shapes.size(map(self.extent, group)) for group in groups)
        return reshaped(self.ordered("".join(groups)), shape)


def _diagonal(term: Term) -> Term:
    """Takes the diagonal of each label that a term repeats: its axes merged, every (n + 1)th element."""
    for label in dict.fromkeys(term.labels):
        while term.labels.count(label) > 1:
            first = term.labels.index(label)
            second = term.labels.index(label, first + 1)
            rest = [i for i in range(len(term.labels)) if i not in (first, second)]
            moved, extent = transposed(term.value, [*rest, first, second]), term.extent(label)
            outer = shapes.static(moved.shape)[:-2]
            flat = reshaped(moved, (*outer, extent * extent))
            taken = sliced(flat, len(outer), 0, extent * extent, extent + 1)
            term = Term(taken, "".join(term.labels[i] for i in rest) + label)
    return term


def _sum_out(term: Term, kept: Iterable[str]) -> Term:
    """Sums over every label that nothing else needs."""
    gone = [i for i, label in enumerate(term.labels) if label not in kept]
    if not gone:
        return term
    left = "".join(label for label in term.labels if label in kept)
    return Term(make("ReduceSum", term.value, ints(gone), keepdims=0), left)


def _drop_ones(term: Term, extents: dict[str, Dim]) -> Term:
    """Takes away the axes of extent 1 that broadcast against a longer one."""
    left = "".join(label for label in term.labels if not (term.extent(label) == 1 and extents[label] != 1))
    return Term(reshaped(term.value, tuple(term.extent(label) for label in left)), left)


def _contract(a: Term, b: Term, kept: set[str]) -> Term:
    """The product of two terms, summed over the labels outside ``kept``: a matmul, or a product where nothing is summed."""
    a, b = _sum_out(a, kept | set(b.labels)), _sum_out(b, kept | set(a.labels))
    shared = [label for label in a.labels if label in b.labels]
    batch = "".join(label for label in shared if label in kept)
    inner = "".join(label for label in shared if label not in kept)
    rows = "".join(label for label in a.labels if label not in shared)
    columns = "".join(label for label in b.labels if label not in shared)
    if inner:
        product = make("MatMul", a.shaped(batch, rows, inner), b.shaped(batch, inner, columns))
    else:
        product = make("Mul", a.shaped(batch, rows, ""), b.shaped(batch, "", columns))
    extents = {**dict(zip(a.labels, a.value.shape, strict=True)), **dict(zip(b.labels, b.value.shape, strict=True))}
    labels = batch + rows + columns
    return Term(reshaped(product, tuple(extents[label] for label in labels)), labels)


def _decomposed(op: Op) -> Value:
    equation = parse(op)
    terms = [_diagonal(Term(op.value(i), labels)) for i, labels in enumerate(equation.terms)]
    if len(terms) > 1:
        terms = [_drop_ones(term, equation.extents) for term in terms]
    result = terms[0]
    for i, term in enumerate(terms[1:], 2):
        result = _contract(result, term, set(equation.output).union(*(later.labels for later in terms[i:])))
    return _sum_out(result, set(equation.output)).ordered(equation.output)


define("Einsum", _infer, _reference, _decomposed)
