"""Bounded inputs of depthwise convolutions in fixed point: when, how far from the float's answers, and when not."""

import numpy as np
import onnx
import pytest

from redline import frontend, passes
from redline.base import dtypes
from redline.base.dtypes import DType
from redline.builder.cuda_shop import for_gpus
from redline.kernels.conv import problem as conv
from redline.kernels.depthwise.problem import LIMIT
from redline.lower import bounded, lower
from redline.lower.program import Program
from tests.lower import machine
from tests.lower.inverted import CHANNELS, expanded


def lowered(model: onnx.ModelProto, storage: DType | None) -> Program:
    return lower(passes.optimize(frontend.load(model), signed=True), storage, wide_taps=True)


def read_as(program: Program) -> list[str]:
    """The types of what the depthwise convolutions read."""
    return [step.reads[0].dtype.name for step in program.steps if step.family == "depthwise"]


def error(program: Program, exact: Program) -> float:
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 4, 9, 7)).astype(np.float32)}
    found, wanted = machine.run(program, feeds)["y"], machine.run(exact, feeds)["y"]
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("storage", [dtypes.float16, dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("pads", [0, 1])
def test_bounded_values_are_held_more_exactly(storage: DType, pads: int) -> None:
    model = expanded(pads=pads)
    before, exact = lowered(model, storage), lowered(model, None)
    after = for_gpus(before)
    assert read_as(before) == [storage.name] and read_as(after) == ["uint16"]
    assert error(after, exact) < error(before, exact)


def test_four_bytes_stay_four_bytes() -> None:
    program = lowered(expanded(), None)
    assert bounded.rewrite(program) == program


def test_filters_stay_float32_where_asked() -> None:
    graph = passes.optimize(frontend.load(expanded()), signed=True)
    for wide, dtype in ((False, dtypes.float16), (True, dtypes.float32)):
        steps = lower(graph, dtypes.float16, wide_taps=wide).steps
        assert [step.reads[1].dtype for step in steps if step.family == "depthwise"] == [dtype]


@pytest.mark.parametrize(
    "model",
    [expanded(high=None), expanded(low=None), expanded(low=-1.0), expanded(high=100.0), expanded(also="Sigmoid")],
    ids=["no upper bound", "no lower bound", "below zero", "a wide range", "read by others"],
)
def test_where_it_stays_as_it_is(model: onnx.ModelProto) -> None:
    program = lowered(model, dtypes.float16)
    assert bounded.rewrite(program) == program


def test_what_is_stored_is_below_the_limit() -> None:
    program = bounded.rewrite(lowered(expanded(), dtypes.float16))
    producer, taps = program.steps[1:3]
    assert (producer.family, taps.family, taps.problem.limit, taps.problem.pad_value) == ("conv", "depthwise", LIMIT, 0)
    x, w = np.zeros((2, 9, 7, 4), np.float16), np.zeros((CHANNELS, 4, 1, 1), np.float16)
    for sums, stored in ((1e6, LIMIT - 1), (6.0, LIMIT - 1), (3.0, LIMIT // 2), (1e-6, 0), (-7.0, 0)):
        bias = np.full(CHANNELS, sums, np.float32)
        (found,) = conv.reference(producer.problem, [x, w, bias])
        assert found.dtype == np.uint16 and np.all(found == stored), sums
