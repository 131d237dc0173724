"""Whole networks with made-up weights: each builds, and the engine answers like ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import zoo

import redline
from redline.cli.comparison import compare
from tests import skeletons

FAST = ("digits", "minilm")


def inputs(name: str) -> zoo.Inputs:
    """The zoo's inputs; for ``minilm`` tokens of no language, because its sentences come with the exported zoo."""
    return zoo.inputs("bert_base" if name == "minilm" else name)


def check(name: str, tmp_path: Path) -> None:
    model, feed = skeletons.load(name), inputs(name)
    given = {key: array.shape for key, array in feed.items()}
    engine = redline.build(model, shapes=given, output=tmp_path / "model.engine", opt_level=0)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    expected = dict(zip(names, session.run(names, feed), strict=True))
    verdicts = compare(expected, engine.run(feed))
    assert [str(verdict) for verdict in verdicts if not verdict.passed] == []


@pytest.mark.parametrize("name", FAST)
def test_a_small_network_answers_like_onnx_runtime(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in skeletons.NAMES if name not in FAST])
def test_a_large_network_answers_like_onnx_runtime(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_an_engine_answers_the_same_twice(tmp_path: Path) -> None:
    engine = redline.build(skeletons.load("digits"), shapes=zoo.shapes("digits"), opt_level=0)
    feed = zoo.inputs("digits")
    first, second = engine.run(feed)["logits"], engine.run(feed)["logits"]
    np.testing.assert_array_equal(first, second)
