"""The skeleton loader: every committed graph fills to a valid, finite and reproducible model."""

import numpy as np
import onnx
import onnxruntime
import pytest

from tests import skeletons

SMALL = ("mobilenetv2", "digits")


@pytest.mark.parametrize("name", skeletons.NAMES)
def test_every_weight_is_filled_within_its_range(name: str) -> None:
    model = skeletons.load(name)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        assert array.shape == tuple(tensor.dims)
        assert not tensor.doc_string
        assert array.dtype.kind != "f" or np.isfinite(array).all()
        assert "running_var" not in tensor.name or (array > 0).all()


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (skeletons.load("digits", seed).SerializeToString() for seed in (0, 0, 1))
    assert first == again != other


def test_the_committed_files_are_small() -> None:
    assert all(file.stat().st_size < 200 * 1024 for file in skeletons.FOLDER.iterdir())


@pytest.mark.parametrize("name", SMALL)
def test_a_filled_model_computes_values_of_its_own_scale(name: str) -> None:
    session = onnxruntime.InferenceSession(skeletons.load(name).SerializeToString(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    image = np.random.default_rng(0).standard_normal((2, *entry.shape[1:])).astype(np.float32)
    (logits,) = session.run(None, {entry.name: image})
    assert np.isfinite(logits).all()
    assert 1e-2 < logits.std() < 1e2
    assert (logits[0] != logits[1]).any()
