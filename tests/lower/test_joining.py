"""Expansions joined with the depthwise convolutions behind them: which, where they stand, and what the engine answers."""

import numpy as np
import onnx
import pytest
from onnx import helper

import redline
from redline import frontend, passes
from redline.builder import workshop
from redline.codegen.c import isa
from redline.lower import Joint, Program, join, joints, lower
from redline.ops import run
from tests.lower.inverted import CHANNELS, expanded
from tests.quant import models

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


def stem(read_later: bool = False) -> onnx.ModelProto:
    """x [1, 3, 16, 12] -> Conv 3x3 -> Conv 3x3 of stride 2 -> two Conv 1x1, of which one is read by a Conv 3x3."""
    rng, nodes = np.random.default_rng(0), []
    shapes = {"w0": (8, 3, 3, 3), "w1": (12, 8, 3, 3), "w2": (5, 12, 1, 1), "w3": (6, 12, 1, 1), "w4": (4, 5, 3, 3)}
    shapes |= {"w5": (2, 8, 3, 3)} if read_later else {}
    constants = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    nodes.append(helper.make_node("Conv", ["x", "w0"], ["c0"], "first", pads=[1] * 4))
    nodes.append(helper.make_node("Relu", ["c0"], ["r0"], "relu"))
    nodes.append(helper.make_node("Conv", ["r0", "w1"], ["c1"], "halved", pads=[1] * 4, strides=[2, 2]))
    nodes.append(helper.make_node("Sigmoid", ["c1"], ["r1"], "sigmoid"))
    nodes.append(helper.make_node("Conv", ["r1", "w2"], ["c2"], "left"))
    nodes.append(helper.make_node("Conv", ["c2", "w4"], ["y"], "behind", pads=[1] * 4))
    nodes.append(helper.make_node("Conv", ["r1", "w3"], ["z"], "right"))
    outputs = ["y", "z"]
    if read_later:
        nodes.append(helper.make_node("Conv", ["r0", "w5"], ["later"], "later", pads=[1] * 4))
        outputs.append("later")
    return models.model(nodes, {"x": (1, 3, 16, 12)}, outputs, constants)


def banded(program: Program, least: int = 0) -> dict[tuple[str, ...], Joint]:
    found = (joint for joint in joints(program, least) if joint.joined.family == "banded")
    return {tuple(sorted(NAMED & set(joint.joined.nodes))): joint for joint in found}


NAMED = {"first", "halved", "left", "right", "behind"}


def test_convolutions_join_with_their_readers_and_those_of_a_reader():
    found = banded(lowered(stem()))
    assert set(found) == {("first", "halved"), ("first", "halved", "left", "right"), ("halved", "left", "right")}
    whole = found["first", "halved", "left", "right"]
    program = join(lowered(stem()), [whole])
    assert [step.family for step in program.steps if NAMED & set(step.nodes)] == ["banded", "conv"]
    assert len(program.buffers) == len(lowered(stem()).buffers) - 2


def test_what_is_read_later_too_is_not_held():
    assert set(banded(lowered(stem(read_later=True)))) == {("halved", "left", "right")}


def test_the_least_that_must_lie_between():
    between = 16 * 12 * 8 * 4  # bytes
    assert ("first", "halved") in banded(lowered(stem()), between - 1)
    assert banded(lowered(stem()), between) == {}


@pytest.mark.parametrize("names", [("first", "halved"), ("halved", "left", "right"), ("first", "halved", "left", "right")])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_engines_of_bands_answer_the_same(monkeypatch, tmp_path, precision, names):
    monkeypatch.setattr(workshop, "joints", lambda program, near: [banded(program)[names]])
    monkeypatch.setattr(workshop.Workshop, "_gain", lambda shop, joint, chosen, cache: 1.0)
    x = np.random.default_rng(3).standard_normal((1, 3, 16, 12)).astype(np.float32)
    options = {"opt_level": 1, "timing_cache": tmp_path / "t.json", "precision": precision}
    with redline.build(stem(), output=tmp_path / "e.engine", **options) as engine:
        assert "banded" in [kernel.family for kernel in engine.header.kernels]
        expected, found = run(frontend.load(stem()), {"x": x}), engine.run({"x": x})
        for name, value in expected.items():
            limit = 1e-5 if precision == "fp32" else 2e-2
            assert np.linalg.norm(found[name] - value) <= limit * np.linalg.norm(value)


def test_a_contest_decides(monkeypatch, tmp_path):
    monkeypatch.setattr(workshop, "joints", lambda program, near: list(banded(program).values()))
    families = []
    for joined in (1e-3, 1.0):
        monkeypatch.setattr(workshop, "contest", lambda parts, whole, *rest, joined=joined: (0.1, joined))
        options = {"opt_level": 1, "timing_cache": tmp_path / "t.json"}
        with redline.build(stem(), output=tmp_path / "e.engine", **options) as engine:
            families.append("banded" in [kernel.family for kernel in engine.header.kernels])
    assert families == [True, False]


def test_steps_that_were_not_timed_stay_two(tmp_path):
    with redline.build(
        expanded(batch=1), output=tmp_path / "e.engine", opt_level=0, timing_cache=tmp_path / "t.json"
    ) as engine:
        assert "expanded" not in [kernel.family for kernel in engine.header.kernels]
