"""Runs a family's Triton kernel in the interpreter on random operands and compares it with the problem's reference."""

import ml_dtypes
import numpy as np
from cuda_interpreter import Tensor, run

from redline.base import extents
from redline.engine import formula
from redline.kernels import FAMILIES
from redline.kernels.gpu import GpuTarget
from redline.kernels.mapped import mapped

PLAIN = GpuTarget(plain=True, tf32=False)


def reach(operand):
    return 1 + sum(s * (e - 1) for e, s in zip(operand.shape, operand.strides, strict=True) if e)


def view(flat, operand):
    strides = [s * flat.itemsize for s in operand.strides]
    return np.lib.stride_tricks.as_strided(flat, operand.shape, strides)


def filled(operand, rng, highest=3):
    count = max(reach(operand), 1)
    if operand.dtype.is_float:
        return rng.standard_normal(count).astype(operand.dtype.numpy)
    low, high = highest if isinstance(highest, tuple) else (0, highest)
    if operand.dtype.kind == "u":
        low, high = 0, high - low + 1
    return rng.integers(low, high, count).astype(operand.dtype.numpy)


def check(family, problem, schedule, gpu_family, target=PLAIN, tolerance=None, highest=3, seed=0, arrays=None, dims=()):
    """``arrays``: contiguous operands to read in place of random ones. ``dims``: of an open problem."""
    rng = np.random.default_rng(seed)
    code = gpu_family.render(problem, schedule, target)
    at = lambda extent: formula.value(extents.formula(extent), dims)  # noqa: E731
    problem = mapped(problem, at)
    flats = [np.ravel(a) for a in arrays] if arrays else [filled(o, rng, highest) for o in problem.reads]
    arrays = [view(f, o) for f, o in zip(flats, problem.reads, strict=True)]
    expected = FAMILIES[family].reference(problem, arrays)
    passed = [code.packings[i].apply(arrays[i]).reshape(-1) if i in code.packings else flat for i, flat in enumerate(flats)]
    outs = [np.full(max(reach(o), 1), poison(o.dtype.numpy), o.dtype.numpy) for o in problem.writes]
    work = [np.zeros(at(code.workspace_bytes), np.int8)] if at(code.workspace_bytes) else []
    maps = {i: (tuple(map(at, m.shape)), tuple(map(at, m.strides)), m.box) for i, m in code.maps.items()}
    told = [dims[dim] for dim in code.dims]
    run(code.text, [at(axis) for axis in code.grid], [*(Tensor.of(raw(a)) for a in [*passed, *outs, *work]), *told], maps)
    for flat, operand, wanted in zip(outs, problem.writes, expected, strict=True):
        got = view(flat, operand).astype(np.float64)
        wanted = wanted.astype(np.float64)
        limit = tolerance or (2e-3 if operand.dtype.size == 2 else 1e-5)
        norm = np.linalg.norm(np.where(np.isfinite(wanted), wanted, 0)) or 1.0
        assert np.array_equal(np.isnan(got), np.isnan(wanted)), f"NaN differ\n{code.text}"
        finite = np.isfinite(wanted)
        error = np.linalg.norm((got - wanted)[finite]) / norm
        assert error <= limit, f"error {error:.2e}\n{got}\n{wanted}\n{code.text}"
        assert np.array_equal(got[~finite], wanted[~finite], equal_nan=True)
    return code


def raw(array):
    """The same memory, as a type that the interpreter knows."""
    return array.view(np.int8) if array.dtype == bool else array


def poison(dtype):
    foreign = (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn)
    return np.nan if dtype.kind == "f" or dtype in foreign else 1
