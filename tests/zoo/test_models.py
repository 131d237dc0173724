"""The real models: every one builds, answers like ONNX Runtime, keeps within its memory, and is fused into few kernels."""

from pathlib import Path

import contest
import numpy as np
import pytest
import zoo

import redline
from redline.cli.comparison import compare
from redline.cli.peers import open_peer

pytestmark = pytest.mark.zoo

MOST_KERNELS = {"yolov5s": 80}


@pytest.fixture(params=zoo.NAMES, scope="module")
def built(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, contest.build(request.param, batch=1, threads=2, precision="fp32", opt_level=0)


def test_the_engine_answers_like_onnx_runtime(built: tuple[str, Path]) -> None:
    name, file = built
    engine = redline.load(file)
    peer = open_peer("onnxruntime", zoo.path(name), zoo.shapes(name), 2)
    for seed in range(2):
        feed = zoo.inputs(name, seed=seed)
        verdicts = compare(peer.run(feed), engine.run(feed))
        assert [str(verdict) for verdict in verdicts if not verdict.passed] == []


def test_serving_takes_no_more_memory_than_allowed(built: tuple[str, Path]) -> None:
    measured = contest.memory(built[1])
    assert measured["taken"] <= measured["allowed"]


def test_fusion_leaves_few_kernels(built: tuple[str, Path]) -> None:
    name, file = built
    header = redline.load(file).header
    assert len(header.kernels) <= MOST_KERNELS.get(name, header.report["nodes"])


def test_sentences_keep_their_neighbours() -> None:
    """The trained encoder at batch 32: every embedding stays nearest to ONNX Runtime's of the same sentence."""
    feed = zoo.inputs("minilm", batch=32)
    file = contest.build("minilm", batch=32, threads=2, precision="fp32", opt_level=0)
    peer = open_peer("onnxruntime", zoo.path("minilm"), zoo.shapes("minilm", 32), 2)
    similarity = redline.load(file).run(feed)["embedding"] @ peer.run(feed)["embedding"].T
    assert (similarity.argmax(1) == np.arange(32)).all()
    assert similarity.diagonal().min() > 0.9999
