"""The peers: both agree on the bundled model at a fixed shape; unknown names and precisions are told apart."""

from pathlib import Path

import numpy as np
import pytest

from redline.base.errors import RedlineError
from redline.cli.peers import FILES, open_peer

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"


@pytest.mark.parametrize("name", FILES)
def test_a_peer_classifies_the_bundled_digits(name: str) -> None:
    if name != "onnxruntime":
        pytest.importorskip(name)
    with np.load(DIGITS.with_name("digits_test.npz")) as stored:
        images, labels = stored["images"], stored["labels"]
    peer = open_peer(name, DIGITS, {"image": images.shape}, num_threads=1)
    assert (peer.run({"image": images})["logits"].argmax(1) == labels).mean() > 0.98
    assert peer.title.endswith("FP32")


def test_an_unknown_peer_is_answered_with_the_closest_name() -> None:
    with pytest.raises(RedlineError, match=r"\[--vs\] there is no peer 'openvin'; did you mean 'openvino'\?"):
        open_peer("openvin", DIGITS, {}, 1)


def test_a_precision_that_a_peer_lacks_is_refused() -> None:
    with pytest.raises(RedlineError, match=r"\[--vs\] onnxruntime does not run in 'bf16'; known: fp32"):
        open_peer("onnxruntime", DIGITS, {}, 1, "bf16")
