"""A row of a register tile through its epilogue into memory, and the short way for results of 8 bits.

Where an epilogue ends in ``uint8(rint(clamp(y)) + zero)``, a loop over vectors leaves the floats y in a small array, and a
helper turns 64 of them into bytes at once: four conversions, three packs whose saturation is the clamp, one shuffle and one
store, instead of four times a clamp, a rounding and a store of 16 bytes. The epilogue runs on the units that the products
need, so each instruction of it counts: with 64 products a sum it takes a fifth of the time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redline.base import dtypes
from redline.kernels.cexpr import store
from redline.kernels.ctext import UNROLL, block, last_vector, loop, unrolled, vector_loop
from redline.kernels.expr import Call, Expr, Lit, call, lit
from redline.kernels.problem import CpuTarget, Operand

HIGHEST = 255
LANES = 16  # floats of a vector that becomes bytes
MOST_AT_ONCE = 4  # vectors of floats in one vector of bytes
MOST_UNROLLED = 16  # statements of an epilogue whose rows are written out, so that the sums never leave their registers

Render = Callable[[Expr], tuple[list[str], str]]  # of an expression: statements, and the text of its value


@dataclass(frozen=True)
class Bytes:
    """uint8(clamp(rint(value) + zero)): ``value`` is cut off above already, or known to be small; int32 holds its rounding."""

    value: Expr
    zero: int


def of(expr: Expr, target: CpuTarget) -> Bytes | None:
    """``expr`` in that form; None for any other, and where the target has no instructions for it."""
    if target.vector_bytes != 64 or expr.dtype != dtypes.uint8:
        return None
    inner = _argument(expr, "cast")
    if inner is None:
        return None
    late = _between(inner, 0, HIGHEST)  # the cut comes last: what is rounded is small
    total = inner if late is None else late
    if not isinstance(total, Call) or total.fn != "add" or not isinstance(total.args[1], Lit):
        return None
    rounded, zero = _argument(total.args[0], "rint32"), int(total.args[1].value)
    if rounded is None or late is not None:
        return None if rounded is None else Bytes(rounded, zero)
    value = _between(rounded, -zero, HIGHEST - zero)
    return None if value is None else Bytes(call("min", value, lit(float(HIGHEST - zero), dtypes.float32)), zero)


def _between(expr: Expr, low: int, high: int) -> Expr | None:
    """x of ``min(max(x, low), high)``."""
    lower = _bounded(expr, "min", high)
    return None if lower is None else _bounded(lower, "max", low)


def _argument(expr: Expr, fn: str) -> Expr | None:
    return expr.args[0] if isinstance(expr, Call) and expr.fn == fn and len(expr.args) == 1 else None


def _bounded(expr: Expr, fn: str, bound: int) -> Expr | None:
    """x of ``fn(x, bound)``."""
    if not isinstance(expr, Call) or expr.fn != fn or not isinstance(expr.args[1], Lit):
        return None
    return expr.args[0] if expr.args[1].value == bound else None


def rows(
    count: int | str, valid: int, lanes: int, epilogue: Expr, out: Operand, target: CpuTarget, head: Sequence[str], column: str,
    where: str, step: int, render: Render, in_memory: bool = False, first: str = "0",
) -> list[str]:  # fmt: skip
    """C: ``sums[count][...]`` through the epilogue into ``out``, row i after row i; a ``count`` may be known at run time only.

    ``head`` declares a row's coordinates from i, ``column`` that of element j of it; ``where`` is the element's offset, and
    ``step`` by how much it grows with j. ``in_memory``: so the sums are already, and nothing is gained where
    rows are written out; the last vector of a row may then overlap the one before. ``first``: the row to begin with.
    """
    found = of(epilogue, target) if lanes == LANES and step == 1 else None
    statements, value = render(epilogue)
    each = [column, *statements, store(out, "out", where, value)]
    if found is None:
        body = vector_loop(valid, lanes, each, in_memory)
    else:
        body = _packed(valid, found, column, where, each, render, in_memory)
    if in_memory or isinstance(count, str):
        return loop("i", first, count, [*head, *body])
    if found is None:
        return unrolled("i", 0, count, [*head, *body])
    pragma = [UNROLL] if len(statements) <= MOST_UNROLLED else []
    return [*pragma, *loop("i", 0, count, [*head, *body])]


def _packed(
    valid: int, found: Bytes, column: str, where: str, each: Sequence[str], render: Render, in_memory: bool
) -> list[str]:
    """C: one row; the columns beyond the last whole vector one by one, or in a vector that overlaps it."""
    full = valid // LANES
    statements, value = render(found.value)
    lines = [f"float floats[{full * LANES}] __attribute__((aligned(64)));"] if full else []
    lines += vector_loop(full * LANES, LANES, [column, *statements, f"floats[j] = {value};"], in_memory)
    first = 0
    while first < full:
        count = next(n for n in (MOST_AT_ONCE, 2, 1) if n <= full - first)
        begin = f"const int64_t j = {first * LANES};"
        lines += block("", [begin, column, f"rl_bytes{count}(floats + j, {found.zero}, out + {where});"])
        first += count
    if not valid % LANES:
        return lines
    if not in_memory or not full:
        return lines + loop("j", full * LANES, valid, each)
    last = last_vector(valid, LANES, [column, *statements, f"last[e] = {value};"])
    place = [f"const int64_t j = {valid - LANES};", column, f"rl_bytes1(last, {found.zero}, out + {where});"]
    return [*lines, f"float last[{LANES}] __attribute__((aligned(64)));", *last, *block("", place)]
