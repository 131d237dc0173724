"""The zoo's models as PyTorch modules for the GPU: what Redline's engines are timed against, and whether they answer right.

Networks that a package has are that package's own modules, in the memory layout that PyTorch recommends; YOLOv5s and digits
are their ONNX graphs, a torch operation for a node. Weights but those two's are a fresh module's: they do not change the time.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
import torchvision_ops  # noqa: F401  (must come before torchvision)

# isort: split
import torchvision
import transformers
from torch import nn
from torch.nn import functional

_SPEC = importlib.util.spec_from_file_location("zoo_graphs", Path(__file__).resolve().parent.parent / "tests" / "skeletons.py")
assert _SPEC and _SPEC.loader
skeletons = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(skeletons)

Inputs = tuple[torch.Tensor, ...]


class OnnxGraph(nn.Module):
    """The ONNX model ``name``, node by node; a value times its own sigmoid is one SiLU, as in the module that was exported."""

    def __init__(self, name: str) -> None:
        super().__init__()
        graph = skeletons.load(name).graph
        self.steps = [_Step(node) for node in graph.node]
        self.feed, self.answer = graph.input[0].name, graph.output[0].name
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        arrays |= {step.out[0]: step.attributes["value"] for step in self.steps if step.kind == "Constant"}
        self.steps = _with_silu([step for step in self.steps if not _is_known(step, arrays)])
        whole = {key for key, array in arrays.items() if array.dtype == np.int64}
        self.numbers = {key: arrays[key].tolist() for key in whole}
        self.slots = {key: f"weight_{i}" for i, key in enumerate(arrays) if key not in whole}
        for key, slot in self.slots.items():
            self.register_buffer(slot, torch.from_numpy(arrays[key].copy()))
        self.factors = {step.names[2]: arrays[step.names[2]].tolist() for step in self.steps if step.kind == "Resize"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = {key: getattr(self, slot) for key, slot in self.slots.items()}
        values = {**self.numbers, **weights, **self.factors, self.feed: x}
        for step in self.steps:
            found = OPERATIONS[step.kind](step.attributes, *(values[name] for name in step.names if name))
            values |= zip(step.out, found if isinstance(found, tuple) else (found,), strict=True)
        return values[self.answer]


class _Step:
    def __init__(self, node: onnx.NodeProto) -> None:
        self.kind, self.names, self.out = node.op_type, list(node.input), list(node.output)
        self.attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if self.kind == "Constant":
            self.attributes["value"] = onnx.numpy_helper.to_array(self.attributes["value"])


def _is_known(step: _Step, arrays: dict[str, np.ndarray]) -> bool:
    """Whether ``step`` needs no input; the constants that it joins are then in ``arrays``."""
    if step.kind == "Concat" and all(name in arrays for name in step.names):
        arrays[step.out[0]] = np.concatenate([arrays[name] for name in step.names], step.attributes["axis"])
    return step.out[0] in arrays


def _with_silu(steps: list[_Step]) -> list[_Step]:
    """x * sigmoid(x) -> silu(x)"""
    sigmoids = {step.out[0]: step for step in steps if step.kind == "Sigmoid"}
    merged = set()
    for step in steps:
        gate = sigmoids.get(step.names[1]) if step.kind == "Mul" else None
        if gate is not None and gate.names[0] == step.names[0]:
            step.kind, step.names = "Silu", step.names[:1]
            merged.add(gate)
    return [step for step in steps if step not in merged]


def _conv(a: dict, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return functional.conv2d(x, w, bias, a["strides"], a["pads"][:2], a["dilations"], a["group"])


def _norm(a: dict, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, mean: torch.Tensor, var: torch.Tensor):
    return functional.batch_norm(x, mean, var, scale, shift, eps=a["epsilon"])


OPERATIONS: dict[str, Callable] = {
    "Conv": _conv,
    "BatchNormalization": _norm,
    "Sigmoid": lambda a, x: torch.sigmoid(x),
    "Silu": lambda a, x: functional.silu(x),
    "Relu": lambda a, x: torch.relu(x),
    "Mul": lambda a, x, y: x * y,
    "Add": lambda a, x, y: x + y,
    "Pow": lambda a, x, y: x**y,
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "MaxPool": lambda a, x: functional.max_pool2d(x, a["kernel_shape"], a["strides"], a["pads"][:2]),
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "Flatten": lambda a, x: x.flatten(a["axis"]),
    "Gemm": lambda a, x, w, bias: functional.linear(x, w, bias),
    "Reshape": lambda a, x, shape: x.reshape(shape),
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Split": lambda a, x, parts: x.split(parts, a["axis"]),
    "Resize": lambda a, x, factors: functional.interpolate(x, scale_factor=factors[2:], mode="nearest"),
}


class Sentences(nn.Module):
    """MiniLM's encoder by transformers with PyTorch's fused attention, mean-pooled over the mask, of unit length."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, attn_implementation="sdpa"
        )
        self.bert = transformers.BertModel(config, add_pooling_layer=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        allowed = mask[:, None, None, :].bool().expand(-1, 1, mask.shape[1], -1)
        states = self.bert(input_ids=ids, attention_mask=allowed, return_dict=False)[0]
        weight = mask.unsqueeze(-1).to(states.dtype)
        return functional.normalize((states * weight).sum(1) / weight.sum(1).clamp(min=1e-6), dim=1)


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert = transformers.BertModel(transformers.BertConfig(attn_implementation="sdpa"))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids=ids, return_dict=False)[0]


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "resnet50": lambda: torchvision.models.resnet50(weights=None),
    "mobilenetv2": lambda: torchvision.models.mobilenet_v2(weights=None),
    "vit_b16": lambda: torchvision.models.vit_b_16(weights=None),
    "bert_base": Bert,
    "minilm": Sentences,
    "yolov5s": lambda: OnnxGraph("yolov5s"),
    "digits": lambda: OnnxGraph("digits"),
}
IMAGES = {"digits": (1, 8, 8), "yolov5s": (3, 640, 640)}
TOKENS = {"bert_base": 128, "minilm": 32}


def make(name: str, batch: int, dtype: torch.dtype, device: str = "cuda") -> tuple[nn.Module, Inputs]:
    """The module in ``dtype`` and random inputs for it, both on ``device``; convolutions' images are channels last."""
    module = MAKERS[name]().eval().to(device, dtype)
    if name in TOKENS:
        ids = torch.randint(1000, 30000, (batch, TOKENS[name]), device=device)
        return module, (ids, torch.ones_like(ids)) if name == "minilm" else (ids,)
    images = torch.randn(batch, *IMAGES.get(name, (3, 224, 224)), device=device, dtype=dtype)
    if name == "vit_b16":
        return module, (images,)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return module, (images.to(memory_format=torch.channels_last),)
