"""Non-maximum suppression, a class of a picture at a time: which boxes stay, and how many.

The boxes whose score is above ``threshold`` come in order of their score, equal ones in order of position. One stays unless it
overlaps one that stays by more than ``overlap`` (intersection over union; an empty box overlaps nothing), until
``limit`` stay: kept[n, c, 0], kept[n, c, 1], ... are their positions and counts[n, c] their number; what stands behind is
undefined.

Sums and quotients are of float32, in the order in which ONNX Runtime computes them, for a box on the border of being
suppressed must fall on the same side. A heap holds the candidates: most of them are never asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.base.errors import RedlineError
from redline.base.extents import high
from redline.kernels import cexpr
from redline.kernels.ctext import block
from redline.kernels.evaluate import evaluate
from redline.kernels.expr import Expr
from redline.kernels.found import Schedule, schedules
from redline.kernels.parts import dims
from redline.kernels.problem import CpuTarget, Family, KernelCode, Operand

BLOCK = 64  # scores that are compared with the threshold at once


@dataclass(frozen=True)
class Problem:
    """``reads``: boxes [N, B, 4], scores [N, C, B], both float32, then what ``limit``, ``overlap`` and ``threshold`` load.

    Those are over no coordinates; ``limit`` is an int64, at most the last extent of ``kept`` [N, C, limit]; a ``threshold`` of
    None lets all scores pass. ``centred``: boxes are (x, y, width, height), else two corners (y, x, y, x) in any order.
    """

    reads: tuple[Operand, ...]
    kept: Operand
    counts: Operand
    limit: Expr
    overlap: Expr
    threshold: Expr | None
    centred: bool = False

    def __post_init__(self) -> None:
        boxes, scores, kept = self.reads[0].shape, self.reads[1].shape, self.kept.shape
        if boxes != (scores[0], scores[2], 4) or kept[:2] != scores[:2] or self.counts.shape != scores[:2]:
            raise RedlineError("suppress", f"boxes {list(boxes)}, scores {list(scores)} and places {list(kept)} do not fit")

    @property
    def writes(self) -> tuple[Operand, ...]:
        return (self.kept, self.counts)

    @property
    def flops(self) -> int:
        n, classes, boxes = self.reads[1].shape
        return n * classes * boxes


HELPERS = """\
#pragma STDC FP_CONTRACT OFF
typedef struct { float score; int32_t box; } entry;
static inline int before(entry a, entry b) { return a.score > b.score || (a.score == b.score && a.box < b.box); }
static void sift(entry *heap, int64_t at, int64_t count) {
  const entry moved = heap[at];
  for (int64_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && before(heap[child + 1], heap[child])) ++child;
    if (!before(heap[child], moved)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}
typedef struct { float y0, x0, y1, x1; } corners;
static inline float smaller(float a, float b) { return a < b ? a : b; }
static inline float larger(float a, float b) { return a > b ? a : b; }
static inline int covers(corners a, corners b, float overlap) {
  const float x0 = larger(a.x0, b.x0), x1 = smaller(a.x1, b.x1), y0 = larger(a.y0, b.y0), y1 = smaller(a.y1, b.y1);
  if (x1 <= x0 || y1 <= y0) return 0;
  const float width = x1 - x0, height = y1 - y0, common = width * height;
  const float area_a = (a.x1 - a.x0) * (a.y1 - a.y0), area_b = (b.x1 - b.x0) * (b.y1 - b.y0);
  const float both = area_a + area_b, joined = both - common;
  if (common <= 0 || area_a <= 0 || area_b <= 0 || joined <= 0) return 0;
  return common / joined > overlap;
}
"""


def render(problem: Problem, schedule: Schedule, target: CpuTarget) -> KernelCode:
    body = [*_beginning(problem), *_candidates(problem), *_keep(problem)]
    text = HELPERS + "\n".join(block("void KERNEL(void *const *args, void *scratch, int64_t chunk)", body)) + "\n"
    n, classes, boxes = problem.reads[1].shape
    scratch = 8 * high(boxes) + 64 + 16 * high(problem.kept.shape[2])
    return KernelCode("suppress", cexpr.prelude(text) + text, n * classes, scratch)


def _beginning(problem: Problem) -> list[str]:
    boxes, scores = problem.reads[:2]
    names = [f"arg{i}" for i in range(len(problem.reads))]
    renderer = cexpr.Renderer(problem.reads, [], extents=())
    lines, texts = [], {}
    for name, expr in (("limit", problem.limit), ("overlap", problem.overlap), ("threshold", problem.threshold)):
        if expr is not None:
            statements, texts[name] = renderer.emit(expr)
            lines += statements
    settled = [
        f"const int64_t room = {problem.kept.shape[2]}, wanted = {texts['limit']}, limit = wanted < room ? wanted : room;",
        f"const float overlap = {texts['overlap']};",
        *([f"const float threshold = {texts['threshold']};"] if problem.threshold is not None else []),
    ]
    return [
        *dims(problem.reads, problem.writes),
        *cexpr.pointers(problem.reads, names, first=0),
        *lines,
        *settled,
        f"const int64_t num_boxes = {boxes.shape[1]}, classes = {scores.shape[1]}, n = chunk / classes, c = chunk % classes;",
        f"const float *boxes = arg0 + n * {boxes.strides[0]};",
        f"const float *scores = arg1 + n * {scores.strides[0]} + c * {scores.strides[1]};",
        "entry *heap = scratch;",
        "corners *stay = (corners *)((char *)scratch + (8 * num_boxes + 63) / 64 * 64);",
    ]


def _candidates(problem: Problem) -> list[str]:
    """C: the heap of what passes the threshold."""
    step = problem.reads[1].strides[2]
    score = f"scores[b * {step}]"
    passes = f"{score} > threshold" if problem.threshold is not None else "1"
    look = [
        f"const int64_t end = b0 + {BLOCK} < num_boxes ? b0 + {BLOCK} : num_boxes;",
        "int some = 0;",
        f"for (int64_t b = b0; b < end; ++b) some |= {passes};",
        "if (!some) continue;",
        f"for (int64_t b = b0; b < end; ++b) if ({passes}) heap[count++] = (entry){{{score}, (int32_t)b}};",
    ]
    return [
        "int64_t count = 0;",
        *block(f"for (int64_t b0 = 0; b0 < num_boxes; b0 += {BLOCK})", look),
        "for (int64_t i = count / 2; i-- > 0;) sift(heap, i, count);",
    ]


def _keep(problem: Problem) -> list[str]:
    """C: the best candidate again and again."""
    boxes = problem.reads[0].strides
    at = [f"boxes[best * {boxes[1]} + {i} * {boxes[2]}]" for i in range(4)]
    if problem.centred:
        half = [f"const float half_w = {at[2]} / 2, half_h = {at[3]} / 2;"]
        box = f"(corners){{{at[1]} - half_h, {at[0]} - half_w, {at[1]} + half_h, {at[0]} + half_w}}"
    else:
        half = [f"const float ya = {at[0]}, xa = {at[1]}, yb = {at[2]}, xb = {at[3]};"]
        box = "(corners){smaller(ya, yb), smaller(xa, xb), larger(ya, yb), larger(xa, xb)}"
    number, place = len(problem.reads), problem.kept.strides
    each = [
        "const int64_t best = heap[0].box;",
        "heap[0] = heap[--count];",
        "sift(heap, 0, count);",
        *half,
        f"const corners box = {box};",
        "int covered = 0;",
        "for (int64_t k = 0; k < num_kept && !covered; ++k) covered = covers(box, stay[k], overlap);",
        "if (covered) continue;",
        f"kept[num_kept * {place[2]}] = best;",
        "stay[num_kept++] = box;",
    ]
    return [
        f"int64_t *kept = (int64_t *)args[{number}] + n * {place[0]} + c * {place[1]}, num_kept = 0;",
        *block("while (count && num_kept < limit)", each),
        f"((int64_t *)args[{number + 1}])[n * {problem.counts.strides[0]} + c * {problem.counts.strides[1]}] = num_kept;",
    ]


def reference(problem: Problem, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    limit, overlap = (evaluate(e, arrays, (1,))[0] for e in (problem.limit, problem.overlap))
    least = -np.inf if problem.threshold is None else evaluate(problem.threshold, arrays, (1,))[0]
    kept, counts = np.zeros(problem.kept.shape, np.int64), np.zeros(problem.counts.shape, np.int64)
    for n, c in np.ndindex(*problem.counts.shape):
        scores, chosen = arrays[1][n, c], list[int]()
        boxes = _corners(arrays[0][n].astype(np.float32), problem.centred)
        for b in np.argsort(-scores, kind="stable"):
            if len(chosen) < min(limit, problem.kept.shape[2]) and (problem.threshold is None or scores[b] > least):
                chosen += [] if any(_overlap(boxes[b], boxes[k]) > overlap for k in chosen) else [b]
        kept[n, c, : len(chosen)], counts[n, c] = chosen, len(chosen)
    return kept, counts


def _corners(boxes: np.ndarray, centred: bool) -> np.ndarray:
    """[B, 4] as y x y x, the lower corner first."""
    if centred:
        half = boxes[:, 2:] / 2
        low, high_ = boxes[:, :2] - half, boxes[:, :2] + half
        return np.concatenate([low[:, ::-1], high_[:, ::-1]], axis=1)
    a, b = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], axis=1)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.float32:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return np.float32(0)
    common, areas = sides[1] * sides[0], [(x[3] - x[1]) * (x[2] - x[0]) for x in (a, b)]
    joined = areas[0] + areas[1] - common
    return np.float32(0) if min(common, *areas, joined) <= 0 else common / joined


FAMILY = Family("suppress", Problem, Schedule, schedules, render, reference)

__all__ = ["FAMILY", "Problem", "Schedule"]
