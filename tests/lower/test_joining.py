"""Expansions joined with the depthwise convolutions behind them: which, where they stand, and what the engine answers."""

import numpy as np
import onnx
import pytest

import redline
from redline import frontend, passes
from redline.builder import workshop
from redline.codegen.c import isa
from redline.lower import Joint, Program, join, joints, lower
from redline.ops import run
from tests.lower.inverted import CHANNELS, expanded

SHAPE = (1, 4, 9, 7)
BETWEEN = 9 * 7 * CHANNELS * 4  # bytes


def lowered(model: onnx.ModelProto) -> Program:
    return lower(passes.optimize(frontend.load(model)), None)


def pairs(program: Program, least: int) -> list[Joint]:
    return [joint for joint in joints(program, least) if joint.joined.family == "expanded"]


def families(program: Program) -> list[str]:
    return [step.family for step in program.steps]


def test_two_steps_become_one_where_the_second_was():
    program = lowered(expanded(batch=1))
    joined = join(program, pairs(program, 0))
    assert [f for f in families(program) if f != "nest"] == ["conv", "depthwise", "conv"]
    assert [f for f in families(joined) if f != "nest"] == ["expanded", "conv"]
    names = next(step.nodes for step in joined.steps if step.family == "expanded")
    assert {"expand", "taps"} <= set(names)
    held = next(step.writes[0].buffer for step in program.steps if step.family == "conv")
    assert held in program.buffers and held not in joined.buffers


def test_only_what_the_caches_do_not_hold():
    program = lowered(expanded(batch=1))
    assert len(pairs(program, BETWEEN - 1)) == 1 and pairs(program, BETWEEN) == []


def test_what_others_read_stays():
    program = lowered(expanded(also="Neg", batch=1))
    assert pairs(program, 0) == []
    assert join(program, []).steps == program.steps


def test_nothing_is_joined_that_is_not_chosen():
    program = lowered(expanded(batch=1))
    assert families(join(program, [])) == families(program)


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("target", ["avx512", "avx2"])
def test_an_engine_with_joined_steps_answers_the_same(monkeypatch, tmp_path, target, pads):
    if not isa.needs(isa.target(target)) <= redline.base.cpu.features():
        pytest.skip(f"needs {target}")
    monkeypatch.setattr(workshop, "joints", lambda program, near: pairs(program, 0))
    monkeypatch.setattr(workshop.Workshop, "_gain", lambda shop, joint, chosen, cache: 1.0)
    model = expanded(pads=pads, batch=1)
    x = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    cache = tmp_path / "timings.json"
    with redline.build(model, output=tmp_path / "e.engine", target=target, opt_level=1, timing_cache=cache) as engine:
        assert "expanded" in [kernel.family for kernel in engine.header.kernels]
        (expected,) = run(frontend.load(model), {"x": x}).values()
        np.testing.assert_allclose(engine.run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_steps_that_were_not_timed_stay_two(tmp_path):
    with redline.build(
        expanded(batch=1), output=tmp_path / "e.engine", opt_level=0, timing_cache=tmp_path / "t.json"
    ) as engine:
        assert "expanded" not in [kernel.family for kernel in engine.header.kernels]
