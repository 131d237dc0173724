"""Engines for ranges of shapes: every shape gives what ONNX Runtime gives, and shapes outside are told what is allowed."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import redline
from redline.base.errors import BuildError, InputError
from redline.base.shapes import ShapeRange
from redline.engine import check_plan
from tests import skeletons

SPAN = ShapeRange((1, 1), (2, 16), (4, 70))
SHAPES = [(1, 1), (1, 2), (2, 1), (4, 70), (3, 16), (1, 17), (2, 33), (4, 64), (1, 31), (3, 48)]


def attention_model(seed: int = 0) -> onnx.ModelProto:
    """Embedding, one layer of attention with a mask, layer norm, a product with an activation, a mean over the length."""
    rng = np.random.default_rng(seed)
    width, heads = 32, 2
    weights = {
        "table": rng.standard_normal((50, width)), "place": rng.standard_normal((70, width)),
        "wq": rng.standard_normal((width, width)) / 6, "wk": rng.standard_normal((width, width)) / 6,
        "wv": rng.standard_normal((width, width)) / 6, "w1": rng.standard_normal((width, 40)) / 6,
        "scale": rng.standard_normal(width), "bias": rng.standard_normal(width), "root": np.array(0.25),
        "one": np.array(1.0), "low": np.array(-1e9),
    }  # fmt: skip
    tensors = [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    split = onnx.numpy_helper.from_array(np.array([0, 0, heads, width // heads]), "split")
    join = onnx.numpy_helper.from_array(np.array([0, 0, width]), "join")
    axes = [onnx.numpy_helper.from_array(np.array(v), k) for k, v in (("a0", [0]), ("a12", [1, 2]), ("a1", [1]), ("i1", 1))]
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["words"]), node("Shape", ["ids"], ["shape"]),
        node("Gather", ["shape", "i1"], ["length"]), node("Unsqueeze", ["length", "a0"], ["length1"]),
        node("Slice", ["place", "a0", "length1", "a0"], ["places"]), node("Add", ["words", "places"], ["x"]),
        node("Cast", ["mask"], ["maskf"], to=TensorProto.FLOAT), node("Sub", ["one", "maskf"], ["hidden"]),
        node("Mul", ["hidden", "low"], ["penalty"]), node("Unsqueeze", ["penalty", "a12"], ["bias4"]),
    ]  # fmt: skip
    for name, order in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
        nodes += [
            node("MatMul", ["x", f"w{name}"], [f"{name}0"]), node("Reshape", [f"{name}0", "split"], [f"{name}1"]),
            node("Transpose", [f"{name}1"], [name], perm=list(order)),
        ]  # fmt: skip
    nodes += [
        node("MatMul", ["q", "k"], ["s0"]), node("Mul", ["s0", "root"], ["s1"]), node("Add", ["s1", "bias4"], ["s2"]),
        node("Softmax", ["s2"], ["p"], axis=-1), node("MatMul", ["p", "v"], ["o0"]),
        node("Transpose", ["o0"], ["o1"], perm=[0, 2, 1, 3]), node("Reshape", ["o1", "join"], ["o2"]),
        node("Add", ["o2", "x"], ["y0"]), node("LayerNormalization", ["y0", "scale", "bias"], ["y1"], axis=-1),
        node("MatMul", ["y1", "w1"], ["z0"]), node("Relu", ["z0"], ["tokens"]),
        node("ReduceMean", ["tokens", "a1"], ["pooled"], keepdims=0),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"]) for n in ("ids", "mask")]
    outputs = [
        helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["batch", "length", 40]),
        helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", 40]),
    ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, [*tensors, split, join, *axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def feed(batch: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
    return {"ids": rng.integers(0, 50, (batch, length)), "mask": mask}


@pytest.fixture(scope="module")
def model():
    return attention_model()


@pytest.fixture(scope="module")
def engine(model):
    return redline.build(model.SerializeToString(), shapes={"ids": SPAN, "mask": SPAN}, opt_level=0)


@pytest.fixture(scope="module")
def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_the_range(engine, session, shape):
    inputs = feed(*shape)
    answers = engine.run(inputs)
    for (name, answer), expected in zip(answers.items(), session.run(None, inputs), strict=True):
        assert answer.shape == expected.shape, name
        np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)


def test_shapes_may_change_from_call_to_call(engine):
    first = {shape: engine.run(feed(*shape)) for shape in SHAPES}
    for shape in SHAPES[::-1]:
        for name, answer in engine.run(feed(*shape)).items():
            np.testing.assert_array_equal(answer, first[shape][name])


def test_contexts_have_their_own_shapes(engine):
    a, b = engine.context(), engine.context(num_threads=1)
    wide, narrow = feed(4, 70), feed(1, 3)
    expected = engine.run(wide)["tokens"], engine.run(narrow)["tokens"]
    for _ in range(3):
        np.testing.assert_array_equal(a.run(wide)["tokens"], expected[0])
        np.testing.assert_allclose(b.run(narrow)["tokens"], expected[1], rtol=1e-5)


def test_outputs_of_the_caller_have_the_shape_of_the_call(engine):
    out = np.empty((2, 5, 40), np.float32)
    assert engine.run(feed(2, 5), out={"tokens": out})["tokens"] is out
    with pytest.raises(InputError, match=r"\[output 'tokens'\] float32 2x5x40 was given; expected float32 2x6x40"):
        engine.run(feed(2, 6), out={"tokens": out})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 71), (1, 71)), "[input 'ids'] axis 1 (length) is 71; allowed: 1..70; build the engine again with a wider"),
        (((5, 7), (5, 7)), "[input 'ids'] axis 0 (batch) is 5; allowed: 1..4"),
        (((0, 7), (0, 7)), "[input 'ids'] axis 0 (batch) is 0; allowed: 1..4"),
        (((2, 7), (2, 8)), "[input 'mask'] int64 2x8 was given; with batch=2, length=7 expected int64 2x7"),
        (((2, 7, 1), (2, 7)), "[input 'ids'] 2x7x1 was given; expected 2 axes, at most 4x70"),
    ],
)
def test_shapes_outside_the_range_are_told_what_is_allowed(engine, shapes, message):
    with pytest.raises(InputError) as error:
        engine.run({name: np.ones(shape, np.int64) for name, shape in zip(("ids", "mask"), shapes, strict=True)})
    assert str(error.value).startswith(message)


def test_the_engine_says_what_it_takes(engine):
    assert "ids: int64 batchxlength" in repr(engine) and "tokens: float32 batchxlengthx40" in repr(engine)
    assert engine.inputs[0].shape == (2, 16)
    check_plan(engine.header, max(t.offset + t.num_bytes for t in engine.header.tensors if t.space == "weights"), "m")


def test_a_model_whose_kernels_have_closed_extents_only_says_so():
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in "xy")
    axis = onnx.numpy_helper.from_array(np.array(0), "axis")
    graph = helper.make_graph([helper.make_node("CumSum", ["x", "axis"], ["y"])], "sum", [x], [y], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    span = ShapeRange((1, 8), (2, 8), (16, 8))
    with pytest.raises(BuildError, match=r"\[--shapes\] a kernel of the family scan with open extents"):
        redline.build(model.SerializeToString(), shapes={"x": span}, opt_level=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "bert_base"])
def test_encoders(name):
    model = skeletons.load(name).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    span = ShapeRange((1, 1), (4, 64), (8, 256))
    names = [i.name for i in session.get_inputs()]
    engine = redline.build(model, shapes=dict.fromkeys(names, span), opt_level=0)
    rng = np.random.default_rng(0)
    for batch, length in ((1, 1), (8, 256), (3, 77), (1, 200)):
        inputs = {n: np.ones((batch, length), np.int64) for n in names}
        inputs["input_ids"] = rng.integers(0, 30000, (batch, length))
        inputs["attention_mask"][:, length // 2 + 1 :] = 0
        for answer, expected in zip(engine.run(inputs).values(), session.run(None, inputs), strict=True):
            assert np.linalg.norm(answer - expected) <= 2e-5 * np.linalg.norm(expected)
