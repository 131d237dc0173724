"""Every neural network operator against the ONNX standard's own node tests, whole and taken apart."""

from dataclasses import replace

import pytest

from redline import ops
from redline.base.shapes import is_static
from tests.ops.node_cases import Case, build, cases, compare, decomposed, is_supported

NAMES = (
    "AffineGrid", "Attention", "AveragePool", "BatchNormalization", "BlackmanWindow", "Col2Im", "Conv", "ConvInteger",
    "ConvTranspose",
    "DFT", "DeformConv", "DequantizeLinear", "DynamicQuantizeLinear", "GRU", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "GridSample", "GroupNormalization", "HammingWindow", "HannWindow", "Hardmax", "InstanceNormalization",
    "LRN", "LSTM", "LayerNormalization", "LogSoftmax", "LpNormalization", "LpPool", "MatMulInteger", "MaxPool", "MaxUnpool",
    "MeanVarianceNormalization", "MelWeightMatrix", "NegativeLogLikelihoodLoss", "NonMaxSuppression", "QLinearConv",
    "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "RNN", "Resize", "RoiAlign", "RotaryEmbedding", "STFT", "Softmax",
    "SoftmaxCrossEntropyLoss",
)  # fmt: skip
SPECTRA = ("DFT", "STFT")  # their expected values hold the noise of a float32 FFT where they should be 0


def _with_noise(case: Case) -> Case:
    return replace(case, atol=max(case.atol, 1e-6)) if case.op in SPECTRA else case


CASES = [_with_noise(case) for case in cases(NAMES) if is_supported(case)]


def test_every_operator_is_defined() -> None:
    assert set(NAMES) <= set(ops.known())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reference(case: Case) -> None:
    graph, feeds = build(case)
    results = ops.run(graph, feeds)
    compare(case, results)
    for name, value in graph.outputs:
        assert not is_static(value.shape) or value.shape == results[name].shape


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decomposition(case: Case) -> None:
    graph, feeds = build(case)
    compare(case, ops.run(decomposed(graph), feeds))
