"""Open shapes with weights and what products read in BF16."""

import numpy as np
import onnxruntime
import pytest

import redline
from redline.base import cpu, dtypes
from redline.base.errors import BuildError
from redline.cli.tolerance import TABLE
from tests.shapes.test_open_engines import SHAPES, SPAN, attention_model, feed
from tests.shapes.test_ragged import sequence

TOLERANCE = TABLE[dtypes.bfloat16].relative_l2
RANGES = {"ids": SPAN, "mask": SPAN}
needs_bf16 = pytest.mark.skipif("avx512_bf16" not in cpu.features(), reason="products of BF16 need avx512_bf16")


@pytest.fixture(scope="module")
def model():
    return attention_model().SerializeToString()


@pytest.fixture(scope="module")
def session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def distance(answer: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(answer - expected) / np.linalg.norm(expected))


@needs_bf16
def test_every_shape_in_bf16(model, session):
    engine = redline.build(model, shapes=RANGES, opt_level=0, precision="bf16")
    types = {access.dtype for kernel in engine.header.kernels if kernel.family == "matmul" for access in kernel.reads[:2]}
    assert types == {"bfloat16"}
    for shape in SHAPES:
        for answer, expected in zip(engine.run(feed(*shape)).values(), session.run(None, feed(*shape)), strict=True):
            assert distance(answer, expected) < TOLERANCE, shape


@needs_bf16
def test_ragged_in_bf16(model, session):
    engine = redline.build(model, shapes=RANGES, opt_level=0, precision="bf16", ragged=True)
    sequences = [sequence(length, number) for number, length in enumerate((16, 1, 70, 33))]
    for given, answers in zip(sequences, redline.run_ragged(engine, sequences), strict=True):
        alone = session.run(None, {name: array[None] for name, array in given.items()})
        for answer, expected in zip(answers.values(), alone, strict=True):
            assert distance(answer, expected[0]) < TOLERANCE


def test_other_precisions_say_what_is_allowed(model):
    with pytest.raises(BuildError, match=r"a product of float16 with open rows, which .* multiplies as float32"):
        redline.build(model, shapes=RANGES, opt_level=0, precision="fp16")
    with pytest.raises(BuildError, match=r"\[--precision\] int8 with open shapes, .*; allowed: fp32, bf16x3, bf16x6, bf16"):
        redline.build(model, shapes=RANGES, opt_level=0, precision="int8", calibrate=[feed(2, 5)])
