"""Engines for sequences without padding: each sequence gets what it gets alone, in whatever company."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import redline
from redline.base import dtypes
from redline.base.errors import BuildError, InputError
from redline.kernels.attention.problem import Problem, reference, scaled
from redline.kernels.problem import Operand
from redline.runtime.ragged import pack
from tests import skeletons
from tests.shapes.test_open_engines import SPAN, attention_model

COMPANIES = [[1], [70], [5], [1, 70, 3], [16, 1, 2, 33], [17, 16, 15, 1], [70, 70, 70, 70], [2, 2, 2]]


def sequence(length: int, seed: int) -> dict[str, np.ndarray]:
    """The last tokens of it are hidden by the mask."""
    rng = np.random.default_rng(seed)
    return {"ids": rng.integers(0, 50, length), "mask": (np.arange(length) < max(1, length - seed % 3)).astype(np.int64)}


@pytest.fixture(scope="module")
def model():
    return attention_model().SerializeToString()


@pytest.fixture(scope="module")
def engine(model):
    return redline.build(model, shapes={"ids": SPAN, "mask": SPAN}, opt_level=0, ragged=True)


@pytest.fixture(scope="module")
def session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("lengths", COMPANIES, ids=str)
def test_each_sequence_gets_what_it_gets_alone(engine, session, lengths):
    sequences = [sequence(length, number) for number, length in enumerate(lengths)]
    for given, answers in zip(sequences, redline.run_ragged(engine, sequences), strict=True):
        alone = session.run(None, {name: array[None] for name, array in given.items()})
        for (name, answer), expected in zip(answers.items(), alone, strict=True):
            assert answer.shape == expected[0].shape
            np.testing.assert_allclose(answer, expected[0], rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)


def test_calls_of_every_company_in_turn(engine):
    feeds = [pack([sequence(n, i) for i, n in enumerate(lengths)]) for lengths in COMPANIES]
    first = [engine.run(feed)["pooled"] for feed in feeds]
    for feed, expected in zip(feeds[::-1], first[::-1], strict=True):
        np.testing.assert_array_equal(engine.run(feed)["pooled"], expected)


def test_starts_and_lengths_that_lie_outside_read_nothing_foreign(engine):
    feed = pack([sequence(5, 0), sequence(9, 1)])
    huge = np.iinfo(np.int64).max
    for starts, lengths in (([-7, huge], [huge, 3]), ([3, -huge], [-huge, huge]), ([14, 13], [1, 2])):
        assert engine.run({**feed, "starts": np.array(starts), "lengths": np.array(lengths)})["tokens"].shape == (1, 14, 40)


def test_the_engine_says_what_it_takes(engine):
    assert "ids: int64 1xtokens" in repr(engine) and "starts: int64 sequences" in repr(engine)
    assert "pooled: float32 sequencesx40" in repr(engine) and engine.report["ragged"]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], r"\[sequences\] there are none"),
        ([sequence(3, 0), {"ids": np.ones(3, np.int64)}], r"\[sequence 1\] its lengths are .*; ids, mask, all of one length"),
        ([{"ids": np.ones(3), "mask": np.ones(4)}], r"\[sequence 0\] its lengths are"),
    ],
)
def test_sequences_that_do_not_fit_together(sequences, message):
    with pytest.raises(InputError, match=message):
        pack(sequences)


def mixing(nodes: list[onnx.NodeProto], *tensors: onnx.TensorProto) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "mixing", [x], [y], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("nodes", "op"),
    [
        ([helper.make_node("Softmax", ["x"], ["y"], axis=-1)], "Softmax"),
        ([helper.make_node("CumSum", ["x", "one"], ["y"])], "CumSum"),
        ([helper.make_node("ReduceMax", ["x"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])], "ReduceMax"),
        ([helper.make_node("ReduceSum", ["x", "one"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])], "Sub"),
        ([helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("MatMul", ["t", "x"], ["y"])], "MatMul"),
    ],
)
def test_models_that_mix_tokens_in_other_ways_are_refused(nodes, op):
    one = onnx.numpy_helper.from_array(np.array(1, np.int64), "one")
    with pytest.raises(BuildError, match=rf"\[ragged\] {op} '.*' mixes the tokens of a sequence"):
        redline.build(mixing(nodes, one), shapes={"x": SPAN}, opt_level=0, ragged=True)


def test_shapes_must_be_ranges_of_batch_and_length(model):
    with pytest.raises(BuildError, match=r"\[ragged\] shapes that are all fixed"):
        redline.build(model, shapes={"ids": (2, 16), "mask": (2, 16)}, ragged=True)
    with pytest.raises(BuildError, match=r"\[ragged\] a CUDA engine"):
        redline.build(model, shapes={"ids": SPAN, "mask": SPAN}, ragged=True, target="cuda:sm_90")
    one = type(SPAN)((1, 1), (1, 16), (1, 70))
    with pytest.raises(BuildError, match=r"\[ragged\] the open axes of ids, mask are not batch and length"):
        redline.build(model, shapes={"ids": one, "mask": one}, ragged=True)


def test_the_reference_keeps_sequences_apart():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 2, 9, 4)).astype(np.float32) for _ in range(3))
    tokens, numbers = Operand.contiguous(dtypes.float32, (1, 2, 9, 4)), Operand.contiguous(dtypes.int64, (2,))
    apart = Problem((tokens, tokens, tokens, numbers, numbers), tokens, scaled(0.5), is_ragged=True)
    (answer,) = reference(apart, [q, k, v, np.array([0, 4]), np.array([4, 5])])
    for own in (slice(0, 4), slice(4, 9)):
        part = Operand.contiguous(dtypes.float32, q[:, :, own].shape)
        (alone,) = reference(Problem((part, part, part), part, scaled(0.5)), [q[:, :, own], k[:, :, own], v[:, :, own]])
        np.testing.assert_allclose(answer[:, :, own], alone, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "bert_base"])
def test_encoders_without_padding(name):
    model = skeletons.load(name).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    span = type(SPAN)((1, 1), (4, 64), (8, 256))
    names = [i.name for i in session.get_inputs()]
    engine = redline.build(model, shapes=dict.fromkeys(names, span), opt_level=0, ragged=True)
    rng = np.random.default_rng(0)
    sequences = [{n: np.ones(length, np.int64) for n in names} for length in (1, 17, 256, 40)]
    for given in sequences:
        given["input_ids"] = rng.integers(0, 30000, len(given["input_ids"]))
    for given, answers in zip(sequences, redline.run_ragged(engine, sequences), strict=True):
        alone = session.run(None, {n: array[None] for n, array in given.items()})
        for answer, expected in zip(answers.values(), alone, strict=True):
            assert np.linalg.norm(answer - expected[0]) <= 2e-5 * np.linalg.norm(expected[0])
