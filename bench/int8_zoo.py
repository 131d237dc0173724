"""The peers' INT8 forms of the zoo: made once by ONNX Runtime's quantizer and by nncf, from the same calibration inputs.

    qdq         quantize_static, QuantizeLinear/DequantizeLinear around the operators: what ONNX Runtime runs fastest
    qoperator   quantize_static, QLinearConv, QLinearMatMul, ...
    openvino    nncf.quantize of the ONNX model, saved as OpenVINO's IR

Activations are uint8 per tensor, weights int8 per channel: the quantizers' own recommendation for processors with VNNI.

    python bench/int8_zoo.py resnet50 qdq
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zoo

FOLDER = zoo.ROOT / ".cache" / "int8"
KINDS = ("qdq", "qoperator", "openvino")
SAMPLES = 64
TRANSFORMERS = frozenset({"bert_base", "minilm", "vit_b16"})
Inputs = dict[str, np.ndarray]


def samples(name: str, count: int = SAMPLES) -> Iterator[Inputs]:
    """Calibration inputs: seeds that no measurement uses; for ``minilm`` the later half of its sentences."""
    if name == "minilm":
        with np.load(zoo.SENTENCES) as stored:
            ids, mask = stored["input_ids"], stored["attention_mask"]
        for i in range(len(ids) // 2, min(len(ids), len(ids) // 2 + count)):
            yield {"input_ids": ids[i : i + 1], "attention_mask": mask[i : i + 1], "token_type_ids": np.zeros_like(ids[i : i + 1])}
        return
    for seed in range(count):
        yield zoo.inputs(name, seed=10_000 + seed)


def path(name: str, kind: str) -> Path:
    """The INT8 model, made now if it is not there yet."""
    file = FOLDER / f"{name}-{kind}.{'xml' if kind == 'openvino' else 'onnx'}"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        MAKERS[kind](name, file)
    return file


def _onnxruntime(name: str, file: Path, form: str) -> None:
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.feed = samples(name)

        def get_next(self) -> Inputs | None:
            return next(self.feed, None)

    prepared = FOLDER / f"{name}-prepared.onnx"
    if not prepared.exists():
        q.shape_inference.quant_pre_process(str(zoo.path(name)), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(
        str(prepared), str(file), Reader(), quant_format=q.QuantFormat[form], per_channel=True,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
    )  # fmt: skip


def _openvino(name: str, file: Path) -> None:
    import nncf
    import openvino as ov

    model = ov.Core().read_model(str(zoo.path(name)))
    model.reshape({key: list(shape) for key, shape in zoo.shapes(name).items()})
    kind = nncf.ModelType.TRANSFORMER if name in TRANSFORMERS else None
    quantized = nncf.quantize(model, nncf.Dataset(list(samples(name))), subset_size=SAMPLES, model_type=kind)
    ov.save_model(quantized, str(file), compress_to_fp16=False)


MAKERS = {
    "qdq": lambda name, file: _onnxruntime(name, file, "QDQ"),
    "qoperator": lambda name, file: _onnxruntime(name, file, "QOperator"),
    "openvino": _openvino,
}


if __name__ == "__main__":
    for made in [path(sys.argv[1], kind) for kind in sys.argv[2:] or KINDS]:
        print(made)
