"""Loop nests made at random (layouts, index arithmetic, paddings, conditions, reductions) against their reference."""

from random import Random

import harness
import numpy as np
import pytest

from redline.base.dtypes import DType, bool_, float16, float32, float64, int8, int32, uint8
from redline.kernels import nest
from redline.kernels.expr import Call, Expr, Load, call, index, integer, lit
from redline.kernels.nest import Problem, Reduction, Schedule
from redline.kernels.problem import Operand

EXTENTS = (1, 2, 3, 4, 8, 15, 16, 17, 24, 33)
MAX_STEPS = 50_000


class Maker:
    """Expressions over coordinates below ``extents``; ``reads`` grows with the operands they load."""

    def __init__(self, rng: Random, extents: list[int], dtype: DType) -> None:
        self.rng, self.extents, self.dtype = rng, extents, dtype
        self.reads: list[Operand] = []

    def operand(self, shape: list[int], dtype: DType) -> Operand:
        """Axes in any order in memory, with gaps."""
        strides, step = [0] * len(shape), 1
        for axis in self.rng.sample(range(len(shape)), len(shape)):
            strides[axis] = step
            step = step * shape[axis] + self.rng.choice([0, 0, 0, 1, 3])
        return Operand(dtype, tuple(shape), tuple(strides))

    def coordinate(self, extent: int) -> Expr:
        """An int64 in [0, extent)."""
        axis = self.rng.randrange(len(self.extents))
        own, at, choice = self.extents[axis], index(axis), self.rng.random()
        if own <= extent and choice < 0.75:
            if choice < 0.1:
                return call("sub", integer(extent - 1), at)
            return at if choice < 0.5 else call("add", at, integer(extent - own))
        return call("mod", at, integer(extent)) if choice < 0.9 else call("floordiv", at, integer(-(-own // extent)))

    def load(self) -> Expr:
        shape = [self.rng.choice([*EXTENTS, *self.extents * 3]) for _ in range(self.rng.randint(0, 3 if self.extents else 0))]
        self.reads.append(self.operand(shape, self.dtype))
        at = [self.coordinate(extent) for extent in shape]
        if not shape or self.rng.random() < 0.7:
            return Load(self.dtype, len(self.reads) - 1, tuple(at))
        moved = self.rng.randrange(len(shape))
        place = call("sub", index(self.rng.randrange(len(self.extents))), integer(self.rng.randint(0, 3)))
        at[moved] = place
        low, high = call("ge", place, integer(0), dtype=bool_), call("lt", place, integer(shape[moved]), dtype=bool_)
        value = Load(self.dtype, len(self.reads) - 1, tuple(at))
        return Call(self.dtype, "where", (call("and", low, high, dtype=bool_), value, lit(1, self.dtype)))

    def expr(self, depth: int) -> Expr:
        choice = self.rng.random()
        if depth == 0 or choice < 0.2:
            return self.load()
        if choice < 0.7:
            return call(self.rng.choice(["add", "sub", "mul", "max", "min"]), self.expr(depth - 1), self.expr(depth - 1))
        if choice < 0.85 and len(self.extents) > 1:
            a, b = self.rng.sample(range(len(self.extents)), 2)
            lower = call("ge", index(a), index(b), dtype=bool_)
            return Call(self.dtype, "where", (lower, self.expr(depth - 1), self.expr(depth - 1)))
        return call(self.rng.choice(["abs", "sign"]), self.expr(depth - 1))


def bounded(rng: Random, count: int, most: int, choices: tuple[int, ...]) -> list[int]:
    extents = [rng.choice(choices) for _ in range(count)]
    while np.prod(extents) > most:
        extents[extents.index(max(extents))] = 2
    return extents


def problem(rng: Random) -> Problem:
    dtype = rng.choice([float32, float32, float32, float16, float64, int8, int32, uint8])
    shape = bounded(rng, rng.randint(0, 4), 2000, EXTENTS)
    if rng.random() < 0.5:
        maker = Maker(rng, shape, dtype)
        body = maker.expr(rng.randint(0, 3))
        return Problem(tuple(maker.reads), (maker.operand(shape, dtype),), (body,))
    inner = bounded(rng, rng.randint(1, 3), MAX_STEPS // max(1, int(np.prod(shape))), (1, 2, 3, 5, 9, 16, 33, 70))
    maker = Maker(rng, shape + inner, dtype)
    body = maker.expr(rng.randint(0, 2))
    reduction = Reduction(rng.choice([kind for kind in nest.problem.KINDS if kind != "prod"]), tuple(inner))
    out = maker.operand(shape, reduction.acc_dtype(dtype))
    return Problem(tuple(maker.reads), (out,), (body,), reduction)


@pytest.mark.parametrize("seed", range(40))
def test_random_nest(seed: int) -> None:
    rng = Random(seed)
    made = problem(rng)
    coarse = [np.round(a.astype(np.float64) * 4) / 4 for a in harness.random_arrays(made.reads, seed)]  # makes ties
    arrays = [a.astype(read.dtype.numpy) for a, read in zip(coarse, made.reads, strict=True)]
    rtol = 2e-2 if made.reads and made.reads[0].dtype == float16 else 2e-5
    harness.check(nest.FAMILY, made, harness.TARGETS["avx512"], [Schedule(rng.choice([1, 3, 7]))], arrays=arrays, rtol=rtol)
