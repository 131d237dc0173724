"""A kernel of every other family on the GPU at hand, against numpy: python bench/gpu_orders.py [FAMILY ...]

Small shapes that leave rests in every axis, so that it also runs under compute-sanitizer; outputs are poisoned. Products and
convolutions are gpu_forms.py's, but those of small integers whose padding has its leading bit set are here.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench"), str(ROOT / "tests" / "cuda")]

from cuda_kernel_check import filled, view  # noqa: E402
from gpu_forms import forms, run  # noqa: E402

from redline.base.dtypes import float16, float32, int8, int16, int32, int64, uint8, uint16  # noqa: E402
from redline.codegen.triton.compile import Request, compile_cubins  # noqa: E402
from redline.kernels import FAMILIES, attention, nest, pool, row, scan, scatter, sort  # noqa: E402
from redline.kernels.conv.problem import Problem as Convolution  # noqa: E402
from redline.kernels.depthwise.problem import LIMIT  # noqa: E402
from redline.kernels.depthwise.problem import Problem as Depthwise  # noqa: E402
from redline.kernels.expr import Acc, Load, call, cast, coordinates, index, integer, lit  # noqa: E402
from redline.kernels.gpu import GpuTarget  # noqa: E402
from redline.kernels.gpu_families import GPU_FAMILIES  # noqa: E402
from redline.kernels.nest.problem import Reduction  # noqa: E402
from redline.kernels.pool.problem import Window  # noqa: E402
from redline.kernels.problem import Operand, Problem  # noqa: E402
from redline.runtime.cuda.driver import Driver  # noqa: E402

dense = Operand.contiguous
PADDED = [  # x, w, strides, dilations, pads, groups
    ((2, 9, 7, 16), (24, 16, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1),
    ((2, 9, 7, 3), (24, 3, 3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 1),
    ((2, 9, 7, 64), (40, 64, 3, 3), (1, 1), (2, 2), (2, 2, 2, 2), 1),
    ((2, 9, 7, 48), (33, 48, 1, 1), (2, 2), (1, 1), (1, 0, 1, 2), 1),
    ((2, 9, 7, 64), (32, 32, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 2),
    ((128, 4, 5, 32), (64, 32, 3, 3), (1, 1), (1, 1), (0, 1, 2, 1), 1),
    ((2, 11, 20), (20, 20, 5), (2,), (1,), (2, 2), 1),
    ((1, 4, 5, 6, 16), (16, 16, 2, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1, 1, 1, 1), 1),
]
PADDINGS = ((uint8, 128), (uint8, 200), (uint8, 255), (int8, -1), (int8, -128))  # in memory all with a leading bit
WHOLE = {int8: (-128, 127), uint8: (0, 255), int16: (-1 << 15, (1 << 15) - 1)}


def problems() -> Iterator[tuple[str, Problem]]:
    yield from products_of_padded_bytes()
    yield from maxima_of_integers()
    yield from others()


def products_of_padded_bytes() -> Iterator[tuple[str, Problem]]:
    for x, w, strides, dilations, pads, groups in PADDED:
        rank = len(strides)
        sizes = zip(x[1:], pads, pads[rank:], w[2:], dilations, strides, strict=False)
        places = [(extent + begin + end - (taps - 1) * d - 1) // s + 1 for extent, begin, end, taps, d, s in sizes]
        for number, (dtype, pad) in enumerate(PADDINGS):
            yield "conv", Convolution(
                dense(dtype, x), dense(int8, w, number != 1), dense(int32, (x[0], *places, w[0])), Acc(int32), (), strides,
                dilations, pads, groups, pad,
            )  # fmt: skip
    for dtype, pad in PADDINGS:
        integers = dense(dtype, (2, 9, 7, 64)), dense(int8, (64, 1, 3, 3), True), dense(int32, (2, 9, 7, 64))
        yield "depthwise", Depthwise(*integers, Acc(int32), (), (1, 1), (1, 1), (1, 1, 1, 1), 64, pad)


def maxima_of_integers() -> Iterator[tuple[str, Problem]]:
    """What lies outside is the type's lowest number."""
    windows = (Window(3, 2, 1, 1, 1), Window(3, 2, 1, 1, 1))
    for dtype in (int8, int16, uint8):
        for channels in (19, 64):
            x, out = dense(dtype, (2, 9, 7, channels)), dense(dtype, (2, 5, 4, channels))
            yield "pool", pool.Problem("max", (x,), out, windows, Acc(dtype), False)
            line = dense(dtype, (2, 70, channels)), dense(dtype, (2, 70, channels))
            window = (Window(5, 1, 1, 2, 2),)
            yield "pool", pool.Problem("max", line[:1], line[1], window, Acc(dtype), False)


def others() -> Iterator[tuple[str, Problem]]:
    for length in (5, 37, 197):
        r = dense(float16, (2, 3, length, 64))
        yield "attention", attention.Problem((r, r, r), r, attention.problem.scaled(0.125))
        yield "attention", attention.Problem((r, r, r), r, attention.problem.scaled(0.125), 0)
    for length in (37, 128, 197, 256):  # enough heads for whole rows of scores in registers
        q, k = dense(float16, (8, 12, length, 64)), dense(float16, (8, 4, length, 64))
        yield "attention", attention.Problem((q, k, k), q, attention.problem.scaled(0.125))
        mask = cast(Load(float16, 3, (index(0), integer(0), integer(0), index(3))), float32)
        score = call("add", attention.problem.scaled(0.125), mask)
        yield "attention", attention.Problem((q, q, q, dense(float16, (8, 1, 1, length))), q, score)
    epilogue = cast(call("add", Acc(float32), cast(Load(float16, 2, (index(3),)), float32)), float16)
    yield "depthwise", Depthwise(
        dense(float16, (2, 9, 7, 33)), dense(float16, (33, 1, 3, 3), True), dense(float16, (2, 9, 7, 33)), epilogue,
        (dense(float16, (33,), True),), (1, 1), (1, 1), (1, 1, 1, 1), 33,
    )  # fmt: skip
    summed = call("add", Acc(float32), Load(float32, 2, (index(3),)))
    for channels in (33, 64):  # of fixed point
        yield "depthwise", Depthwise(
            dense(uint16, (2, 9, 7, channels)), dense(float32, (channels, 1, 3, 3), True), dense(float32, (2, 9, 7, channels)),
            summed, (dense(float32, (channels,), True),), (1, 1), (1, 1), (1, 1, 1, 1), channels, 0, LIMIT,
        )  # fmt: skip
    integers = dense(uint8, (2, 9, 7, 64)), dense(int8, (64, 1, 3, 3), True), dense(int32, (2, 9, 7, 64))
    yield "depthwise", Depthwise(*integers, Acc(int32), (), (1, 1), (1, 1), (1, 1, 1, 1), 64, 200)
    for kind in pool.problem.KINDS:
        windows = (Window(3, 2, 1, 1, 1), Window(3, 2, 1, 1, 1))
        x, out = dense(float16, (2, 9, 7, 19)), dense(float16, (2, 5, 4, 19))
        yield "pool", pool.Problem(kind, (x,), out, windows, cast(Acc(float32), float16), False)
    for kind in row.problem.KINDS:
        x = dense(float16, (7, 333))
        yield "row", row.Problem(kind, (x,), (x,), cast(Load(float16, 0, coordinates(2)), float32), cast(Acc(float32), float16))
    i, j = coordinates(2)
    x = dense(float32, (33, 70))
    yield "nest", nest.Problem((x,), (dense(float16, (70, 33)),), (cast(call("exp", Load(float32, 0, (j, i))), float16),))
    for kind in ("sum", "max", "argmax"):
        out = dense(int64 if kind == "argmax" else float32, (33,))
        yield "nest", nest.Problem((x,), (out,), (Load(float32, 0, (i, j)),), Reduction(kind, (70,)))
    for length in (33, 5000):
        x = dense(float32, (3, length))
        for exclusive, reverse in ((False, False), (True, True)):
            yield "scan", scan.Problem("sum", (x,), x, Load(float32, 0, (i, j)), exclusive, reverse)
        out = dense(float32, (3, 30)), dense(int64, (3, 30))
        yield "sort", sort.Problem((x,), *out, Load(float32, 0, (i, j)), length)
    for fold in scatter.problem.FOLDS:
        data, updates, rows = dense(float32, (60, 90)), dense(float32, (40, 90)), dense(int64, (40,))
        place, value = (Load(int64, 2, (i,)), j), Load(float32, 1, (i, j))
        yield "scatter", scatter.Problem((data, updates, rows), data, Load(float32, 0, (i, j)), (40, 90), place, value, fold)
    yield "nest", nest.Problem((), (dense(float32, (5,)),), (lit(1.5, float32),))


def numbers(family: str, operand: Operand, rng: np.random.Generator) -> np.ndarray:
    """Elements as ``operand`` sees them: of maxima of integers below -1, which wrong padding would outdo."""
    low, high = WHOLE.get(operand.dtype, (0, LIMIT - 1 if operand.dtype == uint16 else 60))
    return view(filled(operand, rng, (low, -1 if family == "pool" and low < 0 else high)), operand)


def chosen(family: str, problem: Problem, target: GpuTarget) -> list[Any]:
    """Two schedules, of convolutions three of every form."""
    if family == "conv":
        return list(forms(family, problem, target, 3))
    return GPU_FAMILIES[family].schedules(problem, target)[:2]


def main() -> None:
    driver, target, rng = Driver(), GpuTarget(), np.random.default_rng()
    driver.push(driver.retain(0))
    stream, wrong, counts = driver.stream(), 0, Counter()
    some = [each for each in problems() if not sys.argv[1:] or each[0] in sys.argv[1:]]
    schedules = [chosen(*each, target) for each in some]
    codes = [[GPU_FAMILIES[f].render(p, s, target) for s in mine] for (f, p), mine in zip(some, schedules, strict=True)]
    asked = [
        Request.of(code, [True] * len(problem.reads + problem.writes), target)
        for (_, problem), mine in zip(some, codes, strict=True)
        for code in mine
    ]
    cubins = iter(compile_cubins(asked))
    for (family, problem), *mine in zip(some, schedules, codes, strict=True):
        arrays = [numbers(family, o, rng) for o in problem.reads]
        expected = FAMILIES[family].reference(problem, arrays)
        for s, code in zip(*mine, strict=True):
            cubin = next(cubins)
            counts[family] += 1
            found = None if isinstance(cubin, str) else run(driver, stream, problem, code, cubin, arrays)
            for got, want in zip(found or [np.full(1, np.nan)], expected, strict=False):
                error = np.linalg.norm(got.astype(np.float64) - want) / max(np.linalg.norm(want.astype(np.float64)), 1e-30)
                if not error <= allowed(got.dtype):
                    wrong += 1
                    print(f"WRONG {error:.1e}", family, problem, s, cubin if found is None else "", flush=True)
    print(f"{dict(counts)}, {wrong} wrong", flush=True)


def allowed(dtype: np.dtype) -> float:
    """The relative L2 error that a result may have."""
    return 0.0 if dtype.kind in "iu" else 2e-3 if dtype.itemsize == 2 else 1e-5


if __name__ == "__main__":
    main()
