"""The zoo's graphs with weights made from a seed: real topologies for tests that have neither torch nor downloads.

bench/skeletons.py wrote the files and says what they hold. The weights are drawn from a normal distribution with the
mean, the deviation and the range of the real ones, so activations keep their scale through the depth.
"""

import gzip
from pathlib import Path

import numpy as np
import onnx

FOLDER = Path(__file__).resolve().parent / "data" / "skeletons"
NAMES = ("resnet50", "mobilenetv2", "yolov5s", "vit_b16", "bert_base", "minilm", "digits")


def load(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model ``name`` with its weights filled; the same for the same seed."""
    model = onnx.load_model_from_string(gzip.decompress((FOLDER / f"{name}.onnx.gz").read_bytes()))
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.doc_string:
            fill(tensor, rng)
    return model


def fill(tensor: onnx.TensorProto, rng: np.random.Generator) -> None:
    """Gives a stripped weight values of the distribution that its doc_string describes."""
    kind, *figures = tensor.doc_string.split()
    assert kind == "normal", tensor.doc_string
    mean, deviation, low, high = map(float, figures)
    values = mean + deviation * rng.standard_normal(tuple(tensor.dims), np.float32)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.raw_data = np.clip(values, low, high).astype(dtype).tobytes()
    tensor.doc_string = ""
