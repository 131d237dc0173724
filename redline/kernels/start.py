"""Sums that begin with a bias: a tile then does not add it to each of its results.

In: an epilogue that adds to the sum, and nowhere else uses it, a float32 that only the channel decides. Out: which operand that
is, and the epilogue without the addition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from redline.base.dtypes import float32
from redline.kernels.dot import Dot
from redline.kernels.expr import Acc, Call, Expr, Load, children, index, transform, walk
from redline.kernels.problem import Operand


class Problem(Protocol):
    """What has sums with an epilogue."""

    @property
    def reads(self) -> tuple[Operand, ...]: ...
    @property
    def out(self) -> Operand: ...
    @property
    def epilogue(self) -> Expr: ...


@dataclass(frozen=True)
class Start:
    """The sums begin with operand number ``operand``, one element a channel (None: with zero); ``epilogue`` is left to do."""

    operand: int | None
    epilogue: Expr

    def at(self, channel: str) -> str:
        """C: a pointer to what the sums from ``channel`` on begin with; nothing where that is zero."""
        return "" if self.operand is None else f"(const float *)args[{self.operand}] + {channel}"


def of_products(problem: Problem, dot: Dot, whole: bool) -> Start:
    """The start of the sums that ``dot`` makes; zero unless they are those of a ``whole`` panel of the last axis of ``out``."""
    plain = dot.acc == float32 and not dot.tiled and not dot.offset and dot.parts == 1
    found = of(problem.epilogue, problem.reads, len(problem.out.shape) - 1) if plain and whole else None
    return found or Start(None, problem.epilogue)


def of(epilogue: Expr, reads: Sequence[Operand], axis: int) -> Start | None:
    """The start of float32 sums whose channels are the output's ``axis``; None where they begin at zero."""
    users = [node for node in walk(epilogue) if any(isinstance(child, Acc) for child in children(node))]
    if len(users) != 1 or not isinstance(users[0], Call) or users[0].fn != "add":
        return None
    acc, bias = users[0].args
    if not isinstance(acc, Acc) or not isinstance(bias, Load) or acc.dtype != float32:
        return None
    operand = reads[bias.operand]
    if bias.index != (index(axis),) or operand.dtype != float32 or operand.strides != (1,):
        return None
    return Start(bias.operand, transform(epilogue, lambda node: acc if node == users[0] else None))
