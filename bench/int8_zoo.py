"""The peers' INT8 forms of the zoo: made once by ONNX Runtime's quantizer and by nncf, from the same calibration inputs.

    qdq         quantize_static, QuantizeLinear/DequantizeLinear around the operators: what ONNX Runtime runs fastest
    qoperator   quantize_static, QLinearConv, QLinearMatMul, ...
    openvino    nncf.quantize of the ONNX model, saved as OpenVINO's IR

Activations are uint8 per tensor, weights int8 per channel: the quantizers' own recommendation for processors with VNNI.

    python bench/int8_zoo.py resnet50 qdq
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nncf
import numpy as np
import openvino as ov
import zoo
from int8_files import FOLDER
from onnxruntime import quantization as q

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
            yield {
                "input_ids": ids[i : i + 1],
                "attention_mask": mask[i : i + 1],
                "token_type_ids": np.zeros_like(ids[i : i + 1]),
            }
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


def onnxruntime_form(model: Path, file: Path, form: str, feeds: Sequence[Inputs], only: Sequence[str] = ()) -> None:
    """``quantize_static`` of ``model``; ``only`` some operators where that is better, as for transformers."""

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.feed = iter(feeds)

        def get_next(self) -> Inputs | None:
            return next(self.feed, None)

    prepared = file.with_name(f"{model.stem}-prepared.onnx")
    if not prepared.exists():
        q.shape_inference.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(
        str(prepared), str(file), Reader(), quant_format=q.QuantFormat[form], per_channel=True,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8, op_types_to_quantize=list(only) or None,
        extra_options={"MatMulConstBOnly": True} if only else {},
    )  # fmt: skip


def openvino_form(
    model: Path, file: Path, shapes: Mapping[str, tuple[int, ...]], feeds: Sequence[Inputs], transformer: bool
) -> None:
    """``nncf.quantize`` of ``model`` at ``shapes``."""
    read = ov.Core().read_model(str(model))
    read.reshape({key: list(shape) for key, shape in shapes.items()})
    kind = nncf.ModelType.TRANSFORMER if transformer else None
    quantized = nncf.quantize(read, nncf.Dataset(list(feeds)), subset_size=len(feeds), model_type=kind)
    ov.save_model(quantized, str(file), compress_to_fp16=False)


MAKERS = {
    "qdq": lambda name, file: onnxruntime_form(zoo.path(name), file, "QDQ", list(samples(name))),
    "qoperator": lambda name, file: onnxruntime_form(zoo.path(name), file, "QOperator", list(samples(name))),
    "openvino": lambda name, file: openvino_form(
        zoo.path(name), file, zoo.shapes(name), list(samples(name)), name in TRANSFORMERS
    ),
}


if __name__ == "__main__":
    for made in [path(sys.argv[1], kind) for kind in sys.argv[2:] or KINDS]:
        print(made)
