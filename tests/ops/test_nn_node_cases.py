"""Every neural network operator against the ONNX standard's own node tests, whole and taken apart."""

import pytest

from redline import ops
from tests.ops.node_cases import Case, build, cases, compare, decomposed, is_supported

_TEXT = (
    "Attention AveragePool DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear "
    "RotaryEmbedding BatchNormalization Conv ConvInteger ConvTranspose DeformConv GlobalAveragePool GlobalLpPool GlobalMaxPool "
    "GroupNormalization Hardmax InstanceNormalization LRN LayerNormalization LogSoftmax LpNormalization LpPool MaxPool "
    "MaxUnpool MeanVarianceNormalization NegativeLogLikelihoodLoss RMSNormalization Softmax SoftmaxCrossEntropyLoss"
)
NAMES = _TEXT.split()

CASES = [case for case in cases(NAMES) if is_supported(case)]


def test_every_operator_is_defined() -> None:
    assert set(NAMES) <= set(ops.known())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reference(case: Case) -> None:
    graph, feeds = build(case)
    results = ops.run(graph, feeds)
    compare(case, results)
    assert [value.shape for _, value in graph.outputs] == [results[name].shape for name, _ in graph.outputs]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decomposition(case: Case) -> None:
    graph, feeds = build(case)
    compare(case, ops.run(decomposed(graph), feeds))
