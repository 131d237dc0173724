"""Every graph operator of this half of the vocabulary against the ONNX standard's own node tests, whole and taken apart."""

import pytest

from redline import ops
from tests.ops.node_cases import Case, build, cases, compare, decomposed, is_supported

NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    Cast CastLike Ceil Celu CenterCropPad Clip Compress Concat ConstantOfShape Cos Cosh CumProd CumSum DepthToSpace Det Div
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm Greater GreaterOrEqual
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log MatMul Max Mean Min Mish Mod Mul Neg NonZero
    Not OneHot Or PRelu Pad Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape ReverseSequence Round ScatterElements ScatterND Selu Shape
    Shrink Sigmoid Sign Sin Sinh Size Slice Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU Swish Tan Tanh
    TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Where Xor
""".split()  # noqa: SIM905  (122 names read better as words)

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
