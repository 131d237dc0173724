"""Writes tests/data/skeletons: the zoo's graphs without their weights, small enough to commit.

A float tensor that does not compress well is a weight: only its shape and the mean, deviation, minimum and maximum of
its values are kept, in its doc_string. Everything else (shapes, axes, scalars, small biases, grids) is kept exactly.
tests/skeletons.py fills the weights again.

    python bench/skeletons.py           needs the exported zoo, see zoo.py
"""

import gzip
import zlib

import numpy as np
import onnx
import zoo

FOLDER = zoo.ROOT / "tests" / "data" / "skeletons"
KEPT_BYTES = 128
GAIN = {"resnet50": 0.75}  # random filters pass more than the normalisation folded into the real ones expects


def is_weight(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and array.nbytes > KEPT_BYTES and len(zlib.compress(array.tobytes(), 1)) > array.nbytes / 8


def strip(tensor: onnx.TensorProto, gain: float) -> None:
    """Replaces the values of a weight by their statistics."""
    array = onnx.numpy_helper.to_array(tensor)
    if not is_weight(array):
        return
    gain = gain if array.ndim > 1 else 1.0
    figures = (array.mean(dtype=np.float64), gain * array.std(dtype=np.float64), array.min(), array.max())
    dims, data_type, name = list(tensor.dims), tensor.data_type, tensor.name
    tensor.Clear()
    tensor.dims.extend(dims)
    tensor.data_type, tensor.name = data_type, name
    tensor.doc_string = "normal " + " ".join(f"{float(x):.6g}" for x in figures)


def write(name: str) -> int:
    """Writes the skeleton of one model; returns its size in bytes."""
    model = onnx.load(zoo.path(name))
    for tensor in model.graph.initializer:
        strip(tensor, GAIN.get(name, 1.0))
    for node in model.graph.node:
        node.ClearField("doc_string")
    packed = gzip.compress(model.SerializeToString(deterministic=True), 9, mtime=0)
    (FOLDER / f"{name}.onnx.gz").write_bytes(packed)
    return len(packed)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for wanted in zoo.NAMES:
        print(f"{wanted:12} {write(wanted) / 1024:7.1f} KiB")
