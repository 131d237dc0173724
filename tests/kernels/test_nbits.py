"""Products with weights of few bits against their reference, at sizes that straddle blocks, vectors and tiles."""

import harness
import numpy as np
import pytest

from redline.base.dtypes import bfloat16, float32
from redline.kernels import nbits
from redline.kernels.expr import Acc, Load, call, index
from redline.kernels.nbits.problem import CODES
from redline.kernels.problem import Operand


def problem(rows, k, n, bits, block, shifted, x_type=float32, bias=False):
    blocks = -(-k // block)
    constant = lambda dtype, shape: Operand.contiguous(dtype, shape, True)  # noqa: E731
    reads = [Operand.contiguous(x_type, (*rows, k)), constant(CODES[bits], (k, n)), constant(float32, (blocks, n))]
    reads += [constant(float32, (blocks, n))] if shifted else []
    epilogue = Acc(float32)
    if bias:
        reads.append(constant(float32, (n,)))
        epilogue = call("max", call("add", epilogue, Load(float32, len(reads) - 1, (index(len(rows)),))), epilogue)
    return nbits.Problem(tuple(reads), Operand.contiguous(float32, (*rows, n)), epilogue, bits, block, shifted)


def arrays_of(made, seed=0):
    rng = np.random.default_rng(seed)
    arrays = harness.random_arrays(made.reads, seed)
    low, high = (-128, 128) if made.bits == 8 else (0, 16)
    arrays[1] = rng.integers(low, high, made.reads[1].shape).astype(made.reads[1].dtype.numpy)
    return arrays


CASES = [
    ((1,), 64, 64, 4, 32, True), ((1,), 64, 33, 8, 64, False), ((3,), 65, 15, 4, 16, False), ((2, 4), 31, 17, 8, 32, True),
    ((7,), 96, 70, 4, 32, True), ((13,), 33, 1, 8, 16, False), ((1,), 1, 16, 4, 2, True), ((5,), 130, 144, 8, 130, False),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_schedule(case):
    made = problem(*case)
    for target in ("avx512", "avx2"):
        found = nbits.FAMILY.schedules(made, harness.TARGETS[target])
        harness.check(nbits.FAMILY, made, harness.TARGETS[target], found, arrays=arrays_of(made), rtol=3e-6)


def test_groups_of_rows_and_a_bias():
    made = problem((9,), 48, 40, 4, 16, True, bias=True)
    found = [nbits.Schedule(2, 2, groups, chunks) for groups, chunks in ((1, 1), (2, 2), (4, 1), (9, 2))]
    harness.check(nbits.FAMILY, made, harness.TARGETS["avx512"], found, arrays=arrays_of(made), rtol=3e-6)
    harness.check(nbits.FAMILY, made, harness.TARGETS["generic"], arrays=arrays_of(made), rtol=3e-6)


def test_rows_in_bfloat16_and_no_rows():
    made = problem((3,), 40, 32, 8, 8, True, bfloat16)
    harness.check(nbits.FAMILY, made, harness.TARGETS["avx512"], arrays=arrays_of(made), rtol=3e-6)
    harness.check(nbits.FAMILY, problem((0,), 8, 8, 8, 8, False), harness.TARGETS["avx512"])
