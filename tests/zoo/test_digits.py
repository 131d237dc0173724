"""The bundled model: the engine keeps the accuracy that training reached."""

from pathlib import Path

import numpy as np

import redline

MODELS = Path(__file__).resolve().parents[2] / "models"


def test_the_digits_engine_is_as_accurate_as_the_model(tmp_path: Path) -> None:
    with np.load(MODELS / "digits_test.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    engine = redline.build(MODELS / "digits.onnx", shapes={"image": images.shape}, output=tmp_path / "d.engine", opt_level=0)
    predicted = engine(image=images)["logits"].argmax(1)
    assert (predicted == labels).mean() > 0.99
