"""The real models: every one builds, answers like ONNX Runtime, keeps within its memory, and is fused into few kernels."""

from collections.abc import Iterator
from pathlib import Path

import contest
import numpy as np
import pytest
import zoo

import redline
from redline.cli.comparison import compare
from redline.cli.peers import open_peer

pytestmark = pytest.mark.zoo

MOST_KERNELS = {"resnet50": 56, "yolov5s": 80, "bert_base": 90}
LARGEST_L2 = 1e-4
SENTENCES, AT_ONCE, LEAST_COSINE = 200, 25, 0.99999


@pytest.fixture(params=zoo.NAMES, scope="module")
def built(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, contest.build(request.param, batch=1, threads=2, precision="fp32", opt_level=0)


def feeds(name: str) -> Iterator[zoo.Inputs]:
    """Plausible inputs of two seeds, and noise where the inputs are images."""
    for seed in range(2):
        yield zoo.inputs(name, seed=seed)
    if not zoo.MODELS[name].vocabulary:
        rng = np.random.default_rng(2)
        yield {key: rng.standard_normal(shape, np.float32) for key, shape in zoo.shapes(name).items()}


def test_the_engine_answers_like_onnx_runtime(built: tuple[str, Path]) -> None:
    name, file = built
    engine = redline.load(file)
    peer = open_peer("onnxruntime", zoo.path(name), zoo.shapes(name), 2)
    for feed in feeds(name):
        for verdict in compare(peer.run(feed), engine.run(feed)):
            assert verdict.passed and verdict.relative_l2 <= LARGEST_L2, str(verdict)


def test_serving_takes_no_more_memory_than_allowed(built: tuple[str, Path]) -> None:
    measured = contest.memory(built[1])
    assert measured["taken"] <= measured["allowed"]


def test_fusion_leaves_few_kernels(built: tuple[str, Path]) -> None:
    name, file = built
    header = redline.load(file).header
    assert len(header.kernels) <= MOST_KERNELS.get(name, header.report["nodes"])


def test_sentences_mean_the_same() -> None:
    """The trained encoder on real sentences: every embedding is ONNX Runtime's, and nearest to it among all of them."""
    feed = zoo.inputs("minilm", batch=SENTENCES)
    file = contest.build("minilm", batch=AT_ONCE, threads=2, precision="fp32", opt_level=0)
    peer = open_peer("onnxruntime", zoo.path("minilm"), zoo.shapes("minilm", AT_ONCE), 2)
    engine = redline.load(file)
    ours, theirs = [], []
    for start in range(0, SENTENCES, AT_ONCE):
        part = {key: np.ascontiguousarray(array[start : start + AT_ONCE]) for key, array in feed.items()}
        ours.append(engine.run(part)["embedding"])
        theirs.append(np.array(peer.run(part)["embedding"]))
    cosine = _normed(np.concatenate(ours)) @ _normed(np.concatenate(theirs)).T
    assert cosine.shape == (SENTENCES, SENTENCES)
    assert cosine.diagonal().min() >= LEAST_COSINE
    assert (cosine.argmax(1) == np.arange(SENTENCES)).all()


def _normed(embeddings: np.ndarray) -> np.ndarray:
    wide = embeddings.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))
