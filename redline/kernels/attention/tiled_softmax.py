"""The softmax between the two products of attention on the matrix unit: sixteen queries at a time, all keys of a block.

    next = the largest score so far;  power = 2^(score * LOG2E - next * LOG2E), rounded, two keys side by side

A score that is the dot product times a positive number is never written: the number joins the exponent.
"""

import math
from collections.abc import Iterator

from redline.kernels import amx, cexpr
from redline.kernels.attention.layout import Block, Layout
from redline.kernels.attention.problem import Problem
from redline.kernels.ctext import VECTORIZE, block, loop
from redline.kernels.expr import Acc, Call, Expr, Index, Lit, children, loads

LOG2E = math.log2(math.e)
LANES = amx.LANES
AT_ONCE = 4  # rows whose maxima do not wait for each other


def softmax(g: Layout, kind: Block) -> list[str]:
    """C: ``powers`` from ``scores``, and ``sum``; ``shrink`` is what the new maximum does to the past."""
    if _scale(g.problem) is not None or not _differ(g.problem):
        return loop("v", 0, kind.lanes // LANES, _vector(g, kind, LANES))
    whole, rest = divmod(kind.valid, LANES)
    lines = loop("v", 0, whole, _vector(g, kind, LANES)) if whole else []
    return lines + (block("", [f"const int64_t v = {whole};", *_vector(g, kind, rest)]) if rest else [])


def _vector(g: Layout, kind: Block, valid: int) -> list[str]:
    """One vector of queries, ``valid`` of which exist for what the score loads."""
    scale = _scale(g.problem)
    factor = (1.0 if scale is None else scale) * LOG2E
    peak = _peak(kind) if scale is not None else _scored_peak(g, kind, valid)
    move = "const float was = top[l]; top[l] = next[l]; next[l] = next[l] == -__builtin_inff() ? 0 : next[l];"
    change = "was - next[l]" if scale is None else f"(was - next[l]) * {_number(scale)}"
    move += f" shrink[l] = rl_exp_below_short({change}); sum[l] *= shrink[l]; next[l] *= {_number(factor)};"
    return [
        f"float *restrict at = scores + v * {LANES};", f"const rl_row16 *before = (const rl_row16 *)(top + v * {LANES});",
        *peak, VECTORIZE, *loop("e", 0, LANES, [f"const int64_t l = v * {LANES} + e;", move]), *_powers(kind, factor),
    ]  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.9e}f"


def _peak(kind: Block) -> list[str]:
    """C: ``next``, the largest of the scores as they are."""
    names = [f"high{a}" for a in range(AT_ONCE)]
    each = [f"{name} = rl_max16(*(const rl_row16 *)(at + (r + {a}) * {kind.lanes}), {name});" for a, name in enumerate(names)]
    return [
        f"rl_row16 {', '.join(f'{name} = *before' for name in names)};", "int64_t r = 0;",
        *block(f"for (; r + {AT_ONCE} <= k1 - k0; r += {AT_ONCE})", each),
        f"for (; r < k1 - k0; ++r) {each[0]}",
        f"*(rl_row16 *)(next + v * {LANES}) = rl_max16(rl_max16(high0, high1), rl_max16(high2, high3));",
    ]  # fmt: skip


def _scored_peak(g: Layout, kind: Block, valid: int) -> list[str]:
    """C: the scores where the dot products were, and ``next``."""
    renderer = cexpr.Renderer(g.problem.reads, ["b", "h", "i", "j"], [f"at[r * {kind.lanes} + e]"], extents=g.problem.extents)
    statements, value = renderer.render(g.problem.score)
    if g.problem.causal is not None:
        value = f"(j <= i + {g.problem.causal} ? {value} : -__builtin_inff())"
    score = [f"const int64_t i = q0 + v * {LANES} + e;", *statements, f"at[r * {kind.lanes} + e] = {value};"]
    high = f"high = rl_max16(*(const rl_row16 *)(at + r * {kind.lanes}), high);"
    row = ["const int64_t j = k0 + r;", VECTORIZE, *loop("e", 0, valid, score), high]
    return [
        "rl_row16 high = *before;", *loop("r", 0, "k1 - k0", row), f"*(rl_row16 *)(next + v * {LANES}) = high;",
    ]  # fmt: skip


def _powers(kind: Block, factor: float) -> list[str]:
    power = f"rl_power16(*(const rl_row16 *)(at + {{}} * {kind.lanes}) * {_number(factor)} - base)"
    store = f"*(rl_bits16 *)(powers + k * {kind.lanes} + v * {2 * LANES}) = rl_pair16(p, {{}});"
    both = [
        f"const rl_row16 p = {power.format('k')}, other = {power.format('(k + 1)')};",
        store.format("other"),
        "total += p + other;",
    ]
    one = [f"const rl_row16 p = {power.format('k')}, none = {{0}};", store.format("none"), "total += p;"]
    place = f"(sum + v * {LANES})"
    return [
        f"const rl_row16 base = *(const rl_row16 *)(next + v * {LANES});", "rl_row16 total = {0};", "int64_t k = 0;",
        *block("for (; k + 1 < k1 - k0; k += 2)", both), *block("if (k < k1 - k0)", one),
        f"*(rl_row16 *){place} += total;",
    ]  # fmt: skip


def _scale(problem: Problem) -> float | None:
    """The number, where a score is the dot product times a positive number and nothing else."""
    e = problem.score
    if problem.causal is None and isinstance(e, Call) and e.fn == "mul" and isinstance(e.args[0], Acc):
        factor = e.args[1]
        return float(factor.value) if isinstance(factor, Lit) and factor.value > 0 else None
    return 1.0 if problem.causal is None and isinstance(e, Acc) else None


def _differ(problem: Problem) -> bool:
    """Whether a score loads something for each query."""
    for load in loads(problem.score):
        strides = problem.reads[load.operand].strides
        if any(stride != 0 and 2 in _axes(index) for index, stride in zip(load.index, strides, strict=True)):
            return True
    return False


def _axes(expr: Expr) -> Iterator[int]:
    if isinstance(expr, Index):
        yield expr.axis
    for child in children(expr):
        yield from _axes(child)
