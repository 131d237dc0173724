"""What one Attention node is: its shapes, lengths, groups and masks, read from its inputs and attributes."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError
from redline.base.shapes import Dim, Shape
from redline.ops.registry import Op

MASK, PAST_KEY, PAST_VALUE, LENGTHS = 3, 4, 5, 6  # optional inputs
RAW, CAPPED, BIASED, PROBABILITIES = range(4)  # qk_matmul_output_mode


def _heads(op: Op, i: int) -> int:
    name = "q_num_heads" if i == 0 else "kv_num_heads"
    heads = int(op.attr(name, 0))
    if heads < 1:
        raise ModelError(op.label, f"Attention of packed heads without {name}", "say how many heads the last axis holds")
    return heads


def _shape4(op: Op, i: int) -> Shape:
    """Input ``i`` (0 to 2) as [B, heads, S, head size]."""
    shape = op.type(i).shape
    if len(shape) == 4:
        return shape
    if len(shape) != 3:
        raise ModelError(op.label, f"input {i} of Attention has rank {len(shape)}", "allowed: 3 and 4")
    heads, width = _heads(op, i), shapes.static(shape[2:], op.label)[0]
    if width % heads:
        raise ModelError(op.label, f"{heads} heads in a width of {width}", "the width must be a multiple")
    return (shape[0], heads, shape[1], width // heads)


@dataclass(frozen=True)
class Form:
    """What one Attention node is, read from its inputs and attributes. Lengths: of queries, of the past, of all keys."""

    op: Op

    @cached_property
    def q(self) -> Shape:
        return _shape4(self.op, 0)

    @cached_property
    def k(self) -> Shape:
        return _shape4(self.op, 1)

    @cached_property
    def v(self) -> Shape:
        return _shape4(self.op, 2)

    @property
    def answer(self) -> Shape:
        """The shape of the first output: the heads packed where those of the queries are."""
        if len(self.op.type(0).shape) == 4:
            return (self.q[0], self.q[1], self.q[2], self.v[3])
        return (self.q[0], self.q[2], math.prod(shapes.static((self.q[1], self.v[3]), self.op.label)))

    @property
    def past(self) -> Dim:
        return self.op.type(PAST_KEY).shape[2] if self.op.has(PAST_KEY) else 0

    @property
    def total(self) -> Dim:
        """Keys altogether. An open length stays open only without a past."""
        return self.k[2] if self.past == 0 else sum(shapes.static((self.past, self.k[2]), self.op.label))

    @property
    def lengths(self) -> tuple[int, int, int]:
        queries, past, total = shapes.static((self.q[2], self.past, self.total), self.op.label)
        return queries, past, total

    @property
    def group(self) -> int:
        """Query heads that share one key head."""
        heads, shared = shapes.static((self.q[1], self.k[1]), self.op.label)
        if shared < 1 or heads % shared:
            raise ModelError(self.op.label, f"{heads} query heads over {shared} key heads", "the first must be a multiple")
        return heads // shared

    @property
    def scale(self) -> float:
        given = self.op.attr("scale")
        return float(given) if given is not None else 1 / math.sqrt(shapes.static(self.q[3:], self.op.label)[0])

    @property
    def softcap(self) -> float:
        return float(self.op.attr("softcap", 0.0))

    @property
    def is_causal(self) -> bool:
        return bool(self.op.attr("is_causal", 0))

    @property
    def reach(self) -> tuple[int, int]:
        """Keys a query sees to its left and to its right; -1: all."""
        return int(self.op.attr("left_window_size", -1)), int(self.op.attr("right_window_size", -1))

    @property
    def has_full_mask(self) -> bool:
        return not self.op.has(MASK) or self.op.type(MASK).shape[-1:] in ((self.total,), (1,), ())

    @property
    def is_plain(self) -> bool:
        op = self.op
        return (
            all(len(op.type(i).shape) == 4 for i in range(3)) and self.group == 1 and self.softcap == 0
            and not any(op.has(i) for i in (PAST_KEY, PAST_VALUE, LENGTHS)) and self.reach == (-1, -1)
            and op.num_outputs == 1 and self.has_full_mask and not op.attr("softmax_precision")
        )  # fmt: skip


def allowed_statically(form: Form, offset: int) -> np.ndarray | None:
    """[Sq, Sk]: which keys causality and the window let a query see; None where they let it see all."""
    queries, _, total = form.lengths
    left, right = form.reach
    position, key = np.arange(queries)[:, None] + offset, np.arange(total)
    allowed = np.ones((queries, total), bool)
    if form.is_causal:
        allowed &= key <= position
    if left >= 0:
        allowed &= key >= position - left
    if right >= 0:
        allowed &= key <= position + right
    return None if allowed.all() else allowed
