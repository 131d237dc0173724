"""The models that Redline is measured on: where their ONNX files lie, and inputs for them.

The files are exported on first use by zoo_export.py, in a process of its own because it needs torch; this module needs
only numpy. The weights are random but calibrated (normalisation statistics measured on data, so activations keep their
scale through the depth), except for ``minilm``, the trained sentence encoder, and ``digits``, trained here.

    python bench/zoo.py                 exports all of them to .cache/zoo
    python bench/zoo.py resnet50 minilm
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "zoo"
SENTENCES = FOLDER / "minilm_sentences.npz"  # real ones, tokenised; their texts lie beside it as JSON
Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Model:
    """An entry of the zoo. ``inputs`` maps each input to its shape behind the batch; token models take int64 ids."""

    title: str
    inputs: Mapping[str, tuple[int, ...]]
    vocabulary: int = 0


def _tokens(length: int) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (length,))


MODELS = {
    "resnet50": Model("ResNet-50 224", {"image": (3, 224, 224)}),
    "mobilenetv2": Model("MobileNetV2 224", {"image": (3, 224, 224)}),
    "yolov5s": Model("YOLOv5s 640", {"image": (3, 640, 640)}),
    "vit_b16": Model("ViT-B/16 224", {"image": (3, 224, 224)}),
    "bert_base": Model("BERT-base seq 128", _tokens(128), vocabulary=30522),
    "minilm": Model("MiniLM-L6 seq 32", _tokens(32), vocabulary=30522),
    "digits": Model("digits 8", {"image": (1, 8, 8)}),
}
NAMES = tuple(MODELS)


def path(name: str) -> Path:
    """The ONNX file of ``name``, exported now if it is not there yet."""
    file = FOLDER / f"{name}.onnx"
    if not file.exists():
        subprocess.run([sys.executable, str(ROOT / "bench" / "zoo_export.py"), name], check=True)
    return file


def shapes(name: str, batch: int = 1) -> dict[str, tuple[int, ...]]:
    """The full shape of every input."""
    return {key: (batch, *shape) for key, shape in MODELS[name].inputs.items()}


def inputs(name: str, batch: int = 1, seed: int = 0) -> Inputs:
    """Plausible inputs: smooth images, tokens of the vocabulary with padded tails, real sentences for ``minilm``."""
    model = MODELS[name]
    rng = np.random.default_rng(seed)
    if name == "minilm":
        return _sentences(rng, batch)
    if model.vocabulary:
        return _token_inputs(rng, batch, model)
    return {key: images(rng, (batch, *shape)) for key, shape in model.inputs.items()}


def images(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 images [N, C, H, W] of about zero mean and unit variance: coarse patches of colour under fine noise."""
    n, c, height, width = shape
    coarse = rng.standard_normal((n, c, 8, 8)).repeat(-(-height // 8), axis=2).repeat(-(-width // 8), axis=3)
    mixed = 0.9 * coarse[:, :, :height, :width] + 0.4 * rng.standard_normal(shape)
    return mixed.astype(np.float32)


def _token_inputs(rng: np.random.Generator, batch: int, model: Model) -> Inputs:
    (length,) = model.inputs["input_ids"]
    ids = rng.integers(1000, model.vocabulary, (batch, length))
    used = rng.integers(length // 2, length + 1, (batch, 1))
    mask = (np.arange(length) < used).astype(np.int64)
    second = (np.arange(length) >= used // 2).astype(np.int64) * mask
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": second}


def _sentences(rng: np.random.Generator, batch: int) -> Inputs:
    if not SENTENCES.exists():  # the exporter writes it before the model
        path("minilm")
    with np.load(SENTENCES) as stored:
        picked = rng.permutation(len(stored["input_ids"]))[:batch]
        ids, mask = stored["input_ids"][picked], stored["attention_mask"][picked]
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def main(names: list[str]) -> None:
    for name in names or NAMES:
        file = path(name)
        print(f"{name:12} {file.stat().st_size / 2**20:8.1f} MiB  {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
